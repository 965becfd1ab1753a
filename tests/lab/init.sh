#!/bin/busybox sh
# First process of a lab guest. Its root becomes the host's, seen through 9p (read-only) under an overlay in memory,
# with the guest kernel's modules and /out, the one directory that the host sees change. It runs /out/script and
# powers the guest off.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do insmod "$module" || echo "lab: cannot load $module"; done

options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$options,ro,cache=loose" host_root /host || echo "lab: no host root"
mount -t tmpfs -o size=90% tmpfs /changes
mkdir -p /changes/upper /changes/work
mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work overlay /root || echo "lab: no overlay"

mkdir -p /root/lib/modules /root/out /root/run
mount -t 9p -o "$options,ro,cache=loose" modules /root/lib/modules
for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/dev/shm
mount -t tmpfs tmpfs /root/run
mkdir /root/run/tmp
mount -t 9p -o "$options,cache=none" out /root/out

exec chroot /root /bin/bash -c '
modprobe configfs && mount -t configfs configfs /sys/kernel/config
ip link set lo up 2>/dev/null
export HOME=/root DM_DISABLE_UDEV=1 TMPDIR=/run/tmp PYTHONDONTWRITEBYTECODE=1
. /out/environment
cd /out
bash /out/script >/out/log 2>&1 </dev/null
echo $? >/out/status
sync
echo o >/proc/sysrq-trigger
sleep 100'
