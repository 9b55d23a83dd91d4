# What is done once a host.
set -e
ip link add br0 type bridge
ip addr add 10.90.0.1/16 dev br0
ip link set br0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
iptables -t nat -A POSTROUTING -s 10.90.0.0/16 ! -o br0 -j MASQUERADE
