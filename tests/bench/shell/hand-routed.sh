# hand-routed.sh NAME ADDRESS: a namespace that the host routes to.
set -e
ip link add "v-$1" up type veth peer name eth0 netns "$1"
ip route add "$2" dev "v-$1"
exec ip -n "$1" -batch - <<END
link set lo up
addr add $2/32 dev eth0
link set eth0 up
route add default via 10.91.0.1 dev eth0 onlink
END
