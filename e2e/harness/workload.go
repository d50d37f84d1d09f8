package harness

import "strings"

// BusyTree is the table of a lower for Busywork.
const BusyTree = `
	file etc/conf "a=x\n"
	file etc/conf2 "b=x\n"
	file etc/conf3 "c=x\n"
	file etc/dir/f "in dir"
	file bin/tool 0755 "#!/bin/sh\n"
	file usr/share/doc/a/copyright "c"
	file usr/share/doc/b/copyright "c"
	file usr/lib/lib.so "elf"
	dir var 0777`

// Busywork is the work of a user in BusyTree, by coreutils.
const Busywork = `
	mkdir -p new/deep/er; echo 1 >new/deep/f; ln new/deep/f new/hard; ln -s deep/f new/soft
	rm -r usr/share/doc; mkdir usr/share/doc; echo r >usr/share/doc/README
	echo more >>etc/conf; chmod 600 etc/conf2; mv etc/conf3 etc/conf4; cp -p etc/conf etc/conf.bak
	sed -i s/x/y/ etc/conf2; rm bin/tool; ln -s ../etc/conf bin/tool; mkfifo var/pipe
	touch -d @1000000 var/old; truncate -s 100000 var/sparse; dd if=/dev/zero of=var/data bs=1k count=300 status=none
	mv etc/dir etc/dir2; rm -rf usr/lib; mkdir -p usr/lib/x; chmod 2775 usr/lib`

// WorkAtDepth is the work of a user in overlays on overlays. The first script works in BusyTree,
// each other on the result of the one before. They break no hard link: the number of links of an
// object whose other names are removed differs from that in a plain copy, here and in the kernel's
// overlayfs.
var WorkAtDepth = []string{
	strings.NewReplacer("ln new/deep/f new/hard; ", "").Replace(Busywork),
	`rm -r new/deep; mkdir new/deep; echo 2 >new/deep/second; mv etc/conf4 etc/conf5; echo more >>etc/conf
	chmod 640 etc/conf.bak; rm usr/share/doc/README; ln etc/conf var/link; rm new/soft; ln -s two new/soft
	truncate -s 5 var/data; rm -r etc/dir2; touch -d @1000 var/old; mkdir var/run; echo x >var/run/pid`,
	`echo 3 >new/deep/third; rm new/deep/second; rm -r usr; mkdir -p usr/share/doc; echo 3 >usr/share/doc/README
	chmod 700 var; cp -a etc etc.bak; rm etc/conf5; mkfifo etc/conf5; sed -i s/b/c/ etc/conf2
	rm -r var/run; mv new/soft var/soft; mkdir etc/dir2; echo again >etc/dir2/f`,
}
