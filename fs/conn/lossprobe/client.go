package lossprobe

import (
	"errors"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// RunClient is the other process of the probe. It mounts the file system of a new connection, dev,
// and sends the connection over socket. The name of its last LOOKUP reports to the server whether
// the appended bytes were lost.
func RunClient(dev *host.Device, socket host.Socket) error {
	root, err := dev.MountDetached()
	if err == nil {
		defer root.Close()
		err = socket.SendDevice(dev)
	}
	dev.Close() // the server has the only descriptor now: when it closes it, all calls below fail
	if err != nil {
		return err
	}
	lost, err := appendIsLost(root)
	if err != nil {
		return err
	}
	name := nameNone
	if lost {
		name = nameFound
	}
	_ = root.LookUp(name)
	return nil
}

// appendIsLost appends to the file while its last page is dirty by a mapping. The page is written
// back before the server answers the WRITE.
func appendIsLost(root *host.DetachedRoot) (bool, error) {
	f, err := root.Map(fileName, wire.PageSize)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := f.WriteMapped(1, 0); err != nil {
		return false, err
	}
	appended := make(chan error)
	go func() {
		_, err := f.Pwrite([]byte(appendedData), oldSize)
		appended <- err
	}()
	_ = root.LookUp(nameAppended)
	err = f.WriteBack()
	_ = root.LookUp(nameFinish)
	if err := errors.Join(err, <-appended); err != nil {
		return false, err
	}
	got := make([]byte, len(appendedData))
	if _, err := f.Pread(got, oldSize); err != nil {
		return false, err
	}
	return string(got) != appendedData, nil
}
