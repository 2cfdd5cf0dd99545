# What others have in the world: a way out, a firewall that lets nothing through, and two containers.
ip link add up0 type veth peer name up1
ip link set up0 up
ip link set up1 up
ip addr add 192.0.2.2/24 dev up0
ip addr add 2001:db8::2/64 dev up0 nodad
ip route add default via 192.0.2.1
ip route add default via 2001:db8::1
nft 'add table inet others; add chain inet others forward { type filter hook forward priority 0; policy drop; }'
for name in c1 c2; do
    ip netns add $name
    ip -n $name link set lo up
done
