package engines

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// podman and buildah build a Containerfile of 12 steps through the mount, and podman builds it on
// the kernel's overlayfs. The images have the same tree.

// containerfile works on a Debian root, in 12 steps, in every way that has failed with such
// programs. Directories are removed or renamed and made again, whole trees get a new mode or owner,
// files of lower layers get links, and a package is installed, changed, purged and installed again.
// Unlike the one for docker it makes no devices, which a plain user cannot make. It is short,
// because podman compares all files of two trees for each step.
const containerfile = `
FROM localhost/debian AS stage
RUN mkdir -p /out/bin /out/lib/deep/er && cp -a /usr/share/base-files /out/share && cp -a /usr/bin/dash /out/bin/tool && \
    ln -s ../bin/tool /out/lib/tool && ln /out/bin/tool /out/bin/tool2 && mkfifo /out/fifo && chmod 4755 /out/bin/tool && \
    chown -R 33:33 /out/lib && touch -d 2001-02-03T04:05:06 /out/share/*
FROM localhost/debian
COPY --from=stage /out /opt/stage
RUN rm -r /usr/share/doc /usr/share/locale /etc/cron.daily && rm /etc/issue /etc/debian_version /usr/bin/wall && mkdir /usr/share/doc
RUN mv /etc/apt /etc/apt.old && mv /usr/share/perl5 /opt/perl5 && mv /opt/stage/lib /opt/lib && mv /opt/lib/deep /opt/deep && \
    mkdir /etc/apt && echo new > /etc/apt/sources.list
RUN chmod -R o-rwx /opt/perl5 /usr/share/bash-completion /etc/pam.d && chmod 0700 /opt/stage/fifo /root
RUN chown -R 33:33 /opt/stage /var/lib/dpkg/info /srv && chown -h 33:33 /opt/lib/tool && chown -R 0:0 /var/lib/dpkg/info
RUN ln /usr/bin/perl /opt/perl && ln -s /usr/bin/perl /opt/perl.link && ln -sf dash /bin/sh && ln /etc/fstab /etc/fstab2 && echo '# more' >> /etc/fstab
RUN cp -a /etc /etc.bak && rm /etc.bak/hostname && cp -a /opt/stage/bin /opt/bin && rm -r /opt/stage/share
COPY package.deb /tmp/
RUN dpkg -i /tmp/package.deb && e2e-tool && echo changed >> /etc/e2e.conf && rm /tmp/package.deb && \
    dpkg --purge e2e-package && test ! -e /etc/e2e.conf && find /var/log /var/cache/debconf -type f -delete
COPY --chown=33:33 package.deb tree /srv/
RUN rm -r /opt/stage && mkdir /opt/stage && echo only > /opt/stage/only && rm -r /srv/old && mv /srv/a /srv/old && mv /opt/deep/er /opt/er && \
    for f in /etc/hosts.allow /etc/shells /etc/login.defs; do echo n > $f.new; mv $f.new $f; rm $f; done
RUN dpkg -i /srv/package.deb && e2e-tool > /opt/told && mv /etc/e2e.d /etc/e2e.new && rmdir /opt/deep && touch -d 2002-02-02 /etc/passwd
CMD ["e2e-tool"]
`

// containerContext makes a folder with the Containerfile and the files that it copies.
func containerContext(t *testing.T, e *engine) string {
	t.Helper()
	dir := e.folder(t)
	for name, text := range map[string]string{
		"Containerfile": containerfile, "tree/a/1": "1", "tree/a/2": "2", "tree/old/3": "3", "tree/old/sub/4": "4",
		"tree/b": "b",
	} {
		harness.Mkdir(t, filepath.Dir(filepath.Join(dir, name)))
		harness.Write(t, filepath.Join(dir, name), text)
	}
	makePackage(t, filepath.Join(dir, "package.deb"))
	harness.Check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		e.own(t, path)
		return os.Chtimes(path, harness.OldTime, harness.OldTime)
	}))
	return dir
}

// localPackage is a package with a program with two names, with conffiles, and with scripts that
// store a state.
const localPackage = `
	file DEBIAN/control "Package: e2e-package\nVersion: 1\nArchitecture: all\nMaintainer: e2e <e2e@test.local>\nDescription: a test\n"
	file DEBIAN/conffiles "/etc/e2e.conf\n/etc/e2e.d/one\n"
	file DEBIAN/postinst 0755 "#!/bin/sh\nset -e\nmkdir -p /var/lib/e2e\necho $1 >/var/lib/e2e/new\nmv /var/lib/e2e/new /var/lib/e2e/state\n"
	file DEBIAN/postrm 0755 "#!/bin/sh\nset -e\nif [ $1 = purge ]; then rm -r /var/lib/e2e; fi\n"
	file etc/e2e.conf "conf\n"
	file etc/e2e.d/one "one\n"
	file usr/bin/e2e-tool 0755 "#!/bin/sh\ncat /var/lib/e2e/state /usr/share/e2e-package/data\n"
	link usr/bin/e2e-hard usr/bin/e2e-tool
	symlink usr/bin/e2e-link e2e-tool
	file usr/share/e2e-package/data "data\n"`

func makePackage(t *testing.T, path string) {
	t.Helper()
	tree := t.TempDir()
	harness.Build(t, &harness.Env{Mode: harness.ModeRoot, Dir: tree}, tree, localPackage)
	// dpkg-deb writes no later time than this.
	out, err := harness.RunIn("", []string{"SOURCE_DATE_EPOCH=1000000000"}, harness.CommandLimit, "dpkg-deb",
		"--root-owner-group", "-Znone", "-b", tree, path)
	if err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
}

// builders are the programs that build. podman makes a layer of each step, buildah one of all
// steps.
var builders = map[string][]string{
	"podman":  {"podman", "build", "--quiet", "--layers=true", "--network=none", "--no-cache"},
	"buildah": {"buildah", "bud", "--quiet", "--layers=false", "--network=none"},
}

// build builds the Containerfile and returns the tree of the image.
func (e *engine) build(t *testing.T, builder string) map[string]string {
	t.Helper()
	e.need(t, imageDebian)
	dir := containerContext(t, e)
	image := "localhost/built-by-" + builder
	before := time.Now().Truncate(time.Second) // as times are in archives
	args := append(append([]string{}, builders[builder]...), "--tag", image, dir)
	e.run(t, args...)
	e.removeImageLater(t, image)
	t.Logf("%s, %s: built in %v", e.name, builder, time.Since(before).Round(100*time.Millisecond))
	if builder == "podman" {
		e.compareDiffs(t, image)
	}
	id, out := e.runToEnd(t, image)
	e.podman(t, "rm", id)
	harness.Equal(t, "a container of the image", out, "configure\ndata\n")
	return withoutRandom(e.export(t, image, before))
}

func TestPodmanBuild(t *testing.T) {
	harness.NeedDaemon(t)
	want := map[string]map[string]string{}
	t.Run("native", func(t *testing.T) {
		onEngine(t, engineNativeRoot, func(t *testing.T, e *engine) {
			for builder := range builders {
				want[builder] = e.build(t, builder)
			}
		})
	})
	if t.Failed() {
		return
	}
	eachEngine(t, func(t *testing.T, e *engine) {
		for builder := range builders {
			t.Run(builder, func(t *testing.T) {
				e.tried(t, builder, actBuild)
				if d := harness.DiffLines(want[builder], e.build(t, builder)); d != "" {
					t.Errorf("an image built on the kernel's overlayfs and one built through the mount differ:\n%s", harness.Clip(d))
				}
			})
		}
	})
}
