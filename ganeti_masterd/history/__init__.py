"""Earlier versions of the configuration: what is kept, who changed what, and how it reads."""
