# What is done once a host: a bridge, and one rule that masquerades.
set -e
ip link add br0 type bridge
ip addr add 10.91.0.1/16 dev br0
ip link set br0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f - <<END
table ip hand {
	chain postrouting {
		type nat hook postrouting priority srcnat;
		ip saddr 10.91.0.0/16 ip daddr != 10.91.0.0/16 masquerade
	}
}
END
