# namespace.sh NAME ADDRESS: what is found in most tutorials, behind their `ip netns add NAME`.
set -e
ip link add "v-$1" type veth peer name "p-$1"
ip link set "p-$1" netns "$1"
ip link set "v-$1" master br0
ip link set "v-$1" up
ip -n "$1" link set lo up
ip -n "$1" link set "p-$1" name eth0
ip -n "$1" addr add "$2/16" dev eth0
ip -n "$1" link set eth0 up
ip -n "$1" route add default via 10.90.0.1
