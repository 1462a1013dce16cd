# gnt-masterd for Ganeti's daemon-util (3.0): to be sourced by its defaults file,
# /etc/default/ganeti, at the end ("gnt-luxi switch" writes this there):
#
#   GNT_MASTERD_BIN=/opt/ganeti-masterd/bin
#   . /opt/ganeti-masterd/share/ganeti-masterd/daemon-util.sh
#
# From then on "ganeti-luxid" is gnt-masterd, and so is "ganeti-wconfd". While gnt-masterd
# doesn't run, "start ganeti-wconfd" starts it for wconfd's socket alone, without clients and
# jobs: gnt-cluster renew-crypto and gnt-cluster master-failover do that for as long as they
# change the configuration themselves. Only where processes of luxid still run jobs, which
# need it, the real wconfd is started. With systemd and a unit gnt-masterd.service, that unit
# is started and stopped; without, and for wconfd's socket alone, the daemon is started here.
# Settings, all optional:
#
#   GNT_MASTERD_BIN   folder of twistd and gnt-luxi; default: where PATH finds them
#   GNT_MASTERD_ARGS  options for gnt-masterd, where it is started here
#
# daemon-util reads this file before it acts, with its own arguments as $1, $2, ... and
# with "set -e"; what is not gnt-masterd's is left to it. Wanted: flock (util-linux).

_masterd_pid_file="$RUN_DIR/ganeti-masterd.pid"
_masterd_wconfd_pid_file="$RUN_DIR/ganeti-wconfd.pid"

# Whether a file is locked as a PID file is while its daemon runs. Makes none.
_masterd_locked() {
  local fd code=0
  { exec {fd}<"$1"; } 2>/dev/null || return 1
  flock --nonblock --shared "$fd" || code=$?
  exec {fd}<&-
  ((code != 0))
}

# Whether gnt-masterd runs, with clients and jobs.
_masterd_runs() {
  _masterd_locked "$_masterd_pid_file"
}

# Whether gnt-masterd runs for wconfd's socket alone. The real wconfd locks the file otherwise.
_masterd_is_wconfd() {
  ! _masterd_runs && _masterd_locked "$_masterd_wconfd_pid_file"
}

_masterd_by_systemd() {
  [[ -d /run/systemd/system ]] && type -p systemctl >/dev/null &&
    [[ "$(systemctl show --property=LoadState gnt-masterd.service)" == LoadState=loaded ]]
}

_masterd_program() {
  echo "${GNT_MASTERD_BIN:+$GNT_MASTERD_BIN/}$1"
}

# Starts gnt-masterd with the options given, here.
_masterd_start_here() {
  /usr/lib/ganeti/ensure-dirs
  # daemon-util kills what has not stopped within 30 seconds.
  "$(_masterd_program twistd)" --pidfile= gnt-masterd --stop-timeout=25 $GNT_MASTERD_ARGS "$@"
}

# Starts gnt-masterd with the options given; returns its exit code (11: not the master node).
_masterd_start() {
  if _masterd_runs; then
    return 0
  fi
  # What a tool that died may have left.
  _masterd_stop_wconfd
  if _masterd_by_systemd; then
    systemctl set-environment "GNT_MASTERD_ONCE=$*"
    local code=0
    systemctl start gnt-masterd.service || code=$?
    systemctl unset-environment GNT_MASTERD_ONCE
    return $code
  fi
  _masterd_start_here "$@"
}

# Starts gnt-masterd for wconfd's socket alone, unless it runs; returns its exit code (13: jobs
# of luxid still run).
_masterd_start_wconfd() {
  if ! _masterd_runs && ! _masterd_is_wconfd; then
    _masterd_start_here --only-wconfd "$@"
  fi
}

# Ends the daemon that holds a PID file; returns 1 if it had to be killed.
_masterd_end() {
  local pid signal tries
  pid=$(<"$1")
  for signal in TERM KILL; do
    kill "-$signal" "$pid" || :
    for ((tries = 0; tries < 300; tries++)); do
      _masterd_locked "$1" || break 2
      sleep 0.1
    done
  done
  [[ $signal == TERM ]]
}

# Stops gnt-masterd, and returns when it has stopped; its queue is fit for luxid then.
_masterd_stop() {
  if ! _masterd_runs; then
    return 0
  fi
  if _masterd_by_systemd && systemctl --quiet is-active gnt-masterd.service; then
    systemctl stop gnt-masterd.service
    return
  fi
  _masterd_end "$_masterd_pid_file" || "$(_masterd_program gnt-luxi)" recover
}

# Stops gnt-masterd where it runs for wconfd's socket alone.
_masterd_stop_wconfd() {
  if _masterd_is_wconfd; then
    _masterd_end "$_masterd_wconfd_pid_file" || :
  fi
}

_masterd_hang_up() {
  if _masterd_runs; then
    kill -HUP "$(<"$_masterd_pid_file")"
  elif _masterd_is_wconfd; then
    kill -HUP "$(<"$_masterd_wconfd_pid_file")"
  fi
}

# The init script starts one daemon after another by this list.
_masterd_rest=()
for _masterd_name in "${DAEMONS[@]}"; do
  if [[ $_masterd_name != ganeti-wconfd ]]; then
    _masterd_rest+=("$_masterd_name")
  fi
done
DAEMONS=("${_masterd_rest[@]}")

case "$1 $2" in
  "check ganeti-luxid" | "check ganeti-masterd")
    if _masterd_runs; then
      exit 0
    fi
    ;;
  "check ganeti-wconfd")
    if _masterd_runs || _masterd_is_wconfd; then
      exit 0
    fi
    ;;
  "start ganeti-luxid")
    _masterd_start $EXTRA_LUXID_ARGS "${@:3}"
    exit
    ;;
  "check-and-start ganeti-luxid" | "check-and-start ganeti-wconfd")
    _masterd_start
    exit
    ;;
  "start ganeti-wconfd")
    _masterd_code=0
    _masterd_start_wconfd $EXTRA_WCONFD_ARGS "${@:3}" || _masterd_code=$?
    # 13: daemon-util goes on with the real one.
    if [[ $_masterd_code != 13 ]]; then
      exit $_masterd_code
    fi
    ;;
  "stop ganeti-luxid")
    # Also the real one, where it runs: daemon-util goes on with that.
    _masterd_stop
    ;;
  "stop ganeti-wconfd")
    _masterd_stop
    _masterd_stop_wconfd
    ;;
  "rotate-logs ganeti-luxid" | "rotate-logs ganeti-wconfd")
    _masterd_hang_up
    exit
    ;;
  "rotate-all-logs ")
    _masterd_hang_up
    ;;
  "start-master ")
    _masterd_start $EXTRA_LUXID_ARGS
    exec "$0" start ganeti-rapi
    ;;
  "start-all ")
    for _masterd_name in "${DAEMONS[@]}"; do
      _masterd_code=0
      "$0" start "$_masterd_name" || _masterd_code=$?
      # 11: this is not the master node, as on most.
      if [[ $_masterd_code != 0 && $_masterd_code != 11 ]]; then
        echo "$_masterd_name: exit code $_masterd_code" >&2
        exit 1
      fi
    done
    exit 0
    ;;
  "stop-master " | "stop-all ")
    _masterd_stop
    _masterd_stop_wconfd
    ;;
esac
