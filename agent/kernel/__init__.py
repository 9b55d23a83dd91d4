"""The only folder that touches the kernel: netlink, nftables, sysctls, namespaces."""
