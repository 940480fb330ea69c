"""What the library and the plugin cost, measured; each module is one command. See README.md."""
