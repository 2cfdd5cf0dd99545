# What others have in the world of every-step.rhai.
for name in ext idle mov ren port; do
    ip link add ${name}0 type veth peer name ${name}1
    ip link set ${name}0 up
    ip link set ${name}1 up
done
ip link set idle0 down
ip addr add 198.51.100.1/24 dev ext0
# With an address of its own, as Docker's has: the kernel gives a bridge without one that of its lowest port.
ip link add obr0 type bridge
ip link set obr0 up address 02:00:00:00:00:0b
# A bridge learns from its first port what it can offload, and never forgets.
ip link set port0 master obr0
ip link set port0 nomaster
ip link add oport0 type veth peer name oport1
ip link set oport0 master obr0 up
ip link add ovx0 type vxlan id 9 dstport 4790
ip netns add other
ip -n other link set lo up
nft add table inet theirs
nft add chain inet theirs forward '{ type filter hook forward priority 0; policy drop; }'
