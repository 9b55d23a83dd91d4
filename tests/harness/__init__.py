"""What the system tests share: a running agent, hands inside namespaces, independent eyes."""
