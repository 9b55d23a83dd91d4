"""Other people's tools, as they are installed on Debian, run for real in a private host."""
