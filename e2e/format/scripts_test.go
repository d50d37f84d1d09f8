package format

// The tables and scripts of the features in features_test.go.

var plainLayers = []string{`
	file f 0640 "upper lower"
	own f 1000 1001
	time f 1000000100
	file gone "g"
	file d/a "a"
	dir tree/sub 0711
	file tree/sub/one "1"
	symlink soft f
	file kind/file "f"
	file kind/dir/x "x"
	symlink kind/soft x
	fifo kind/fifo 0622
	white hidden
	xattr f user.note "of f"
	xattr tree user.note "of tree"`, `
	file hidden "h"
	file d/b "b"
	file d/sub/c "c"
	file tree/sub/two 0600 "2"
	file tree/three "3"
	file deep/a/b/c/d "deep"
	sock kind/sock
	file big "` + "0123456789012345678901234567890123456789012345678901234567890123456789" + `"
	size big 70000
	file again "x"`,
}

// plainScripts need no feature.
var plainScripts = []string{`
	unlink gone
	rmtree d
	mkdir d 0755
	create d/new 0640 "new"
	append f "+"
	rename soft softer
	unlink kind/file
	mkdir kind/file 0700
	create kind/file/below 0644 "b"
	rmtree kind/dir
	create kind/dir 0644 "no dir"
	unlink kind/soft
	create kind/soft 0600 "not soft"
	chmod kind/fifo 0600
	chown kind/sock 5 6
	rename tree/sub/two tree/two
	chmod tree/sub 0700
	setxattr tree user.note changed
	setxattr tree/three user.new v
	utimes tree/three 1000000200 5
	append deep/a/b/c/d "er"
	pwrite big 69000 "here"
	create hidden 0644 "seen"
	link f hard
	unlink again
	mkdir again 0755
	rename deep/a/b deeper = EXDEV
	utimes tree 1000000300 7`, `
	create gone 0600 "back"
	rmtree d
	create d 0644 "a file"
	append hard "+"
	unlink f
	rmtree kind/file
	symlink kind/file there
	unlink kind/dir
	mkdir kind/dir 0711
	create kind/dir/x 0644 "new x"
	rename tree/two d2
	removexattr tree user.note
	truncate big 10
	rmtree deep/a/b
	mkdir deep/a/b 0755
	rmdir again
	create again 0644 "x2"
	exchange again hard`, `
	rmtree kind
	rmtree tree
	mkdir tree 0755
	rename hidden tree/hidden
	unlink hard`,
}

// redirectLayers are for renames of directories: of one layer, of both, of the upper.
var redirectLayers = []string{`
	file a/b/h "h"
	file a/b/c/i "i"
	dir p 0750
	file p/j "j"
	file old/f "hidden by a whiteout"
	file m/one/x "mx"
	xattr a user.note "of a"
	own m 7 8
	file e1/f "e1"
	symlink a/b/soft h
	time a/b/h 1000000111`, `
	file a/b/c/f "f"
	file a/b/c/i "hidden"
	file p/q/g "g"
	file z/y/x/w "w"
	file m/one/two/three/four "4"
	file m/one/side/s "s"
	file e2/f "e2"
	file w/f "wf"
	file empty/f "x"
	file n/sub/f 0600 "nf"`,
}

var redirectScripts = []string{`
	rename a x
	rename x/b p/b
	rename p/b/c p/b/d
	append p/b/d/f "+"
	create p/b/d/new 0644 "new"
	unlink p/b/h
	mkdir a 0755
	create a/new 0644 "n"
	rename p/q q
	rename z q/z
	rename m/one/two/three m/three
	rename m/one m/uno
	rename m/uno/side m/uno/rand
	rmtree old
	rename w old
	exchange e1 e2
	unlink empty/f
	rename n empty
	chmod x 0700
	setxattr m/three user.note moved
	chown p/b/d 3 4
	utimes q 1000000400 9`, `
	rename p/b x/back
	rename x/back/d deep
	rename q/z/y/x q/x
	rename a n
	mkdir n/inner 0755
	rename n/inner a
	exchange m/three/four empty/sub
	rename m m2
	rmtree m2/uno/rand
	mkdir m2/uno/rand 0711
	rename e1 e3
	create deep/more 0600 "more"
	rename x a/x
	rename old/f old/g`, `
	rename deep a/x/deep
	rename a/x/deep a/x/c
	rename a/x b
	rename b/back b/b
	rename e3 e1
	rmtree q
	rename m2 m`,
}

// followScript runs between the other two if a mount finds renamed directories, but refuses
// renames.
const followScript = `
	rename p/b x/back = EXDEV
	rename q/z/y/x q/x = EXDEV
	mkdir n 0755
	rename a n/a
	exchange m/three/four empty/sub = EXDEV
	append p/b/d/i "+"
	chmod m/uno/two 0711
	rmtree e1
	mkdir e1 0755
	create e1/new 0600 "new"
	rename p/b/d/f p/b/f
	unlink old/f
	rmtree q/z/y`

const lastFollowScript = `
	rename p/b x/b
	rename x/b/d deep
	rename m m2
	rename m2/uno/two two
	rename q/z e1/z
	rename n/a n/b`

// metacopyLayers are for changes of metadata.
var metacopyLayers = []string{`
	file mode 0644 "the data of mode"
	file owner "the data of owner"
	file times "the data of times"
	file attr "the data of attr"
	file move "the data of move"
	file away "the data of away"
	file dir/a "a"
	file dir/b "b"
	file hard1 "hard data"
	link hard2 hard1
	file empty ""
	xattr attr user.a "1"`, `
	file big "` + "0123456789012345678901234567890123456789012345678901234567890123456789" + `"
	size big 100000
	file dir/c "c"
	dir far
	file twice/sub/f "twice"
	file twice/g "twice g"
	file suid 4755 "suid"
	file cut "to be cut"`,
}

var metacopyScripts = []string{`
	chmod mode 0600
	chown owner 1000 1001
	utimes times 1000000500 3
	setxattr attr user.a 2
	setxattr attr user.b 3
	chmod big 0755
	chmod move 0640
	rename move moved
	chmod away 0604
	rename away far/away
	chmod dir/a 0600
	rename dir/a dir/a2
	rename dir ren
	chmod ren/b 0700
	chmod hard1 0600
	link owner owner2
	link attr far/attr2
	chmod empty 0600
	rename twice far/once
	rename far/once again
	chmod again/sub/f 0600
	rename again/sub sub
	chown suid 5 5
	chmod cut 0600`, `
	append mode "+"
	append far/away "+"
	rename moved far/moved
	pwrite big 50000 "here"
	chmod ren/c 0711
	rename ren/a2 a3
	append owner2 "+"
	append far/attr2 "+"
	append hard1 "+"
	truncate cut 2
	rename again twice
	rename sub twice/sub2
	chmod twice/g 0711
	append twice/sub2/f "+"
	read times
	removexattr attr user.b
	chmod empty 0644
	append empty "full"
	unlink far/moved
	rename ren dir`, `
	append times "+"
	append dir/b "+"
	append a3 "+"
	append suid "+"
	chmod owner 0600
	truncate big 0`,
}

// indexLayers have files with several names.
var indexLayers = []string{`
	file a1 "one"
	link a2 a1
	link d/a3 a1
	file b1 "two"
	link b2 b1
	file g1 "gone"
	link g2 g1
	file c1 "three"
	link c2 c1
	link c3 c1
	file k1 "five"
	link k2 k1
	link k3 k1
	symlink s1 x
	link s2 s1
	fifo p1
	link p2 p1
	dir m
	file m/f "mf"`, `
	file e1 "four"
	link m/e2 e1
	file single "s"
	file h1 "hidden"
	link h2 h1`,
}

var indexScripts = []string{`
	append a1 "+"
	rename d/a3 d/moved
	link a2 a4
	unlink b1
	append b2 "+"
	unlink g1
	unlink g2
	chmod c1 0600
	unlink c2
	chmod k1 0600
	unlink h1
	create h1 0644 "not it"
	setxattr m/e2 user.note v
	chown s1 4 5
	chmod p1 0600
	link single single2
	append single2 "+"
	rename m m2`, `
	append d/moved "*"
	unlink a1
	unlink c1
	append c3 "+"
	append h2 "+"
	link b2 b3
	append e1 "+"
	unlink single
	rename a4 d/a5
	utimes s2 1000000600 1
	link p2 p3`, `
	unlink a2
	unlink d/moved
	append d/a5 "last"
	unlink b2
	unlink c3
	unlink m2/e2
	append single2 "-"`,
}

// originLayers have an object of each kind to copy up.
var originLayers = []string{`
	file f "f"
	file g "g"
	symlink soft x
	fifo pipe
	sock sock
	char null 1/3 0666
	block disk 7/250 0660
	dir d
	file d/a "a"
	file d/b "b"
	dir other
	file other/x "x"
	file merged/one "1"`, `
	file f "hidden"
	file d/low "low"
	file merged/two "2"
	file deep/a/b "b"
	file gone "gone"
	file lower "l"`,
}

var originScripts = []string{`
	append f "+"
	chmod soft/nothing 0600 = ENOENT
	chown soft 1 1
	chmod pipe 0600
	chmod sock 0600
	chmod null 0600
	chmod disk 0600
	chmod d 0700
	append d/a "+"
	rename d/b other/b
	rename soft other/soft
	append merged/two "+"
	append deep/a/b "+"
	create new 0644 "new"
	mkdir newdir 0755
	rename g newdir/g
	unlink gone
	create gone 0644 "another"
	link f linked`, `
	rename other/b newdir/b
	append newdir/g "+"
	rename f d/f
	append lower "+"
	rename lower other/lower
	unlink linked
	rename null other/null
	chmod merged/one 0600`, `
	rename newdir/b d/b
	rename other/lower lower`,
}
