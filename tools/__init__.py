"""What the Makefile and CI use and no one installs."""
