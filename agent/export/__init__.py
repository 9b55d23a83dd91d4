"""What vethd tells: control socket, metrics, log."""
