package engines

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// dockerfile builds an image of a Debian root, buildBase. Its steps change objects of lower layers
// in every way. The stages and their COPY count as steps too.
const dockerfile = `
FROM ` + buildBase + ` AS first
RUN rm -r /usr/share/locale /usr/share/man && rm /etc/issue /etc/issue.net
RUN mv /usr/share/common-licenses /usr/share/licenses && mv /usr/share/doc /usr/share/documents && mkdir /usr/share/doc && echo r >/usr/share/doc/README
RUN chmod -R go-rwx /usr/share/licenses /usr/share/zoneinfo && chmod 4711 /usr/bin/tac
RUN chown -R 33:33 /usr/share/documents && chown -h 1:2 /etc/alternatives/awk
RUN ln /etc/passwd /etc/passwd.linked && ln /usr/bin/tac /srv/tac && ln -s ../etc /opt/etc && ln -sf nowhere /etc/os-release
RUN cp -a /etc /etc.bak && rm /etc.bak/hostname && cp -a /usr/share/documents/apt /opt && sed -i s/root/toor/ /etc/passwd
COPY e2e.deb list /tmp/
RUN dpkg -i /tmp/e2e.deb && test -e /etc/e2e.conf && echo changed >>/etc/e2e.conf && dpkg --purge --force-depends tzdata && dpkg --audit
RUN mkfifo /srv/pipe && mknod /srv/null c 1 3 && mknod /srv/disk b 7 200 && mkdir /srv/dir && touch /srv/dir/f /srv/file
RUN chmod 600 /srv/pipe /srv/disk && chown 3:4 /srv/pipe /srv/null && rm -r /srv/dir && echo now a file >/srv/dir && rm /srv/file && mkdir /srv/file
RUN dpkg --purge e2e && echo n >/tmp/list.new && mv /tmp/list.new /tmp/list && rm /tmp/list && \
	rm -r /usr/share/documents/apt && mkdir /usr/share/documents/apt && echo n >/usr/share/documents/apt/new

FROM ` + buildBase + ` AS second
RUN mkdir -p /out/deep/er && for i in $(seq 200); do echo $i >/out/deep/f$i; done && ln /out/deep/f1 /out/deep/er/f1 && \
	ln -s ../f2 /out/deep/er/f2 && chmod 2750 /out/deep/er && chown 1:2 /out/deep/f3 && rm -r /usr/share/doc
COPY list /out/

FROM first
COPY --from=second /out /out
COPY --from=second --chown=5:6 /out/deep /etc/deep
COPY list /out/deep/
RUN rm /out/deep/f1* && mv /out/deep /out/moved && test ! -e /usr/share/man && test ! -e /tmp/list && chroot / /bin/true
CMD ["/bin/bash"]
`

const buildBase = "e2e/base"

// buildContext makes the folder for a user's build, with a package that has a conffile and scripts.
// The user namespace of a plain user cannot make devices: the build makes files instead.
func buildContext(t *testing.T, e *harness.Env, user string) string {
	t.Helper()
	dir := filepath.Join(e.Dir, "context")
	harness.Mkdir(t, dir)
	pkg := filepath.Join(e.Dir, "package")
	harness.Build(t, e, pkg, `
		file DEBIAN/control "Package: e2e\nVersion: 1\nArchitecture: all\nMaintainer: e2e <e2e@test.local>\nDescription: a test\n"
		file DEBIAN/conffiles "/etc/e2e.conf\n"
		file DEBIAN/postinst 0755 "#!/bin/sh\nset -e\nln -s share/e2e /usr/e2e\nmkdir -p /var/lib/e2e; echo s >/var/lib/e2e/state\n"
		file DEBIAN/postrm 0755 "#!/bin/sh\nset -e\nrm -rf /usr/e2e /var/lib/e2e\n"
		file etc/e2e.conf "as shipped\n"
		file usr/share/e2e/a "a"
		link usr/share/e2e/b usr/share/e2e/a
		file usr/share/doc/e2e/copyright "c"
		file usr/share/locale/xx/e2e "x"`)
	harness.Shell(t, e.Dir, "dpkg-deb --root-owner-group --build package context/e2e.deb")
	text := dockerfile
	if user == engineRootless {
		text = strings.NewReplacer("mknod /srv/null c 1 3", "touch /srv/null", "mknod /srv/disk b 7 200",
			"touch /srv/disk").Replace(text)
	}
	harness.Write(t, filepath.Join(dir, "Dockerfile"), text)
	harness.Write(t, filepath.Join(dir, "list"), "listed\n")
	return dir
}
