# What others have in the world of take_over.rhai: the host's way out, wan0, set up in the many ways there are.
ip netns add isp
ip -n isp link set lo up
ip link add wan0 type veth peer name isp0 netns isp
ip link add lan0 type veth peer name lan1
for dev in wan0 lan0 lan1; do ip link set $dev up; done
ip -n isp addr add 192.0.2.1/24 dev isp0
ip -n isp addr add 203.0.113.1/32 dev lo
ip -n isp addr add 2001:db8::1/64 dev isp0 nodad
ip -n isp addr add fe80::1/64 dev isp0 nodad
ip -n isp link set isp0 up
ip addr add 192.0.2.2/24 broadcast 192.0.2.77 dev wan0
ip addr add 192.0.2.3/24 dev wan0 label wan0:1 valid_lft 36000 preferred_lft 18000
ip addr add 10.1.0.1/16 dev wan0 noprefixroute
ip addr add 2001:db8::2/64 dev wan0
ip addr add 2001:db8::3/64 dev wan0 nodad
ip addr add fe80::77/64 dev wan0
ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev wan0 nud permanent
ip neigh add proxy 192.0.2.99 dev wan0
ip route add default via 192.0.2.1 dev wan0 proto static metric 5 mtu lock 1400
ip route add 10.1.0.0/16 dev wan0 proto kernel scope link src 10.1.0.1 metric 100
ip route add 10.9.0.0/16 via 192.0.2.1 dev wan0 src 192.0.2.3
ip route append 10.9.0.0/16 via 192.0.2.9 dev wan0
ip route add 10.11.0.0/16 dev wan0 table 100
ip -6 route add default via fe80::1 dev wan0 proto static pref high expires 36000
ip -6 route add 2001:db8:b::/48 nexthop via fe80::1 dev wan0 weight 2 nexthop via fe80::2 dev lan0
# A router's link-local address, and the host's own, are theirs to use a second or two later (RFC 4862, 5.4).
until ping -n -c 1 -W 1 2001:db8::1 >/dev/null && ip netns exec isp ping -n -c 1 -W 1 2001:db8::2 >/dev/null; do :; done
