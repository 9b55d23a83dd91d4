# hand-port.sh NAME ADDRESS: a namespace behind a port of the bridge.
set -e
ip link add "v-$1" up master br0 type veth peer name eth0 netns "$1"
exec ip -n "$1" -batch - <<END
link set lo up
addr add $2/16 dev eth0
link set eth0 up
route add default via 10.91.0.1
END
