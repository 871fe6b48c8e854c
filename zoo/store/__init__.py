"""Where weights live: finding them on this machine."""
