#!/bin/sh
# The machine's first process: sets the machine up, runs every case of /cases, tells on the second serial line how each one ended,
# and switches off. What it says itself goes to the console.
# Tools of this name that are in the archive come before those of busybox.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb NO_COLOR=1 COLUMNS=100 LC_ALL=C.UTF-8

# What a lab could leave behind.
facts() {
    ip -batch - <<-END
	addr show
	route show table all
	rule show
	neigh show nud permanent
	netns list
	END
    ip -6 -batch - <<-END
	route show table all
	rule show
	neigh show nud permanent
	END
    nft list ruleset
    cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
    pidof topo
}
# Runs a case in a network and mounts that nobody else has seen, and looks for what it leaves there.
if [ "$1" = case ]; then
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /tmp
    ip link set lo up
    facts >/tmp/before
    sh ./run </dev/null
    code=$?
    facts >/tmp/after
    if ! cmp -s /tmp/before /tmp/after; then
        echo "left behind:"
        diff /tmp/before /tmp/after
        code=99
    fi
    exit "$code"
fi

/bin/busybox mkdir -p /proc /sys /tmp /run /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
# Without it, the first tunnel of its kind makes one more in every network that there is.
echo 1 >/proc/sys/net/core/fb_tunnels_only_for_init_net
mount -t cgroup2 cgroup2 /sys/fs/cgroup
stty -F /dev/ttyS1 raw -echo
exec >/dev/ttyS1 2>&1
read -r now _ </proc/uptime
echo "## ready $now"
for case in /cases/*; do
    name=${case##*/}
    cd "$case" || continue
    echo "## begin $name"
    unshare -n -m /init case
    code=$?
    # On a line of its own, whatever was said last.
    echo
    echo "## end $name $code"
done
read -r now _ </proc/uptime
echo "## done $now"
poweroff -f
