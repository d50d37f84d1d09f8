package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

const (
	// maxClients is how many clients a daemon serves at a time, and maxWaiting how many more may wait
	// in the kernel.
	maxClients = 8
	maxWaiting = 64
	// requestTime is how long a client has for its request, and replyTime how long for taking the
	// reply.
	requestTime = time.Second
	replyTime   = 2 * time.Second
	// pause is how long the place of a client stays taken after the reply. It bounds what clients
	// that send requests without end take from the CPUs that the mount needs: maxClients requests
	// in a pause.
	pause = 20 * time.Millisecond
	// noDescriptorPause is how long the daemon waits when it has no descriptor for a client.
	noDescriptorPause = 100 * time.Millisecond
	// minDescriptors is the limit of open files below which there is no socket: clients would take
	// descriptors that requests need.
	minDescriptors = 256
)

// Source returns what clients request. Several goroutines call its functions at once, also after
// [Server.Close].
type Source struct {
	Mount func() Mount
	Stats func() Stats
	// Failed gets an error that is a fault of the program.
	Failed func(error)
}

// Place is the runtime directory of a daemon that is about to mount. It stays reachable when the
// daemon has left the mounts of its caller.
type Place struct{ dir *host.Folder }

// OpenPlace opens the runtime directory of this user. It makes nothing there.
func OpenPlace() (*Place, error) {
	if limit, err := host.OpenFilesLimit(); err != nil || limit < minDescriptors {
		return nil, fmt.Errorf("the limit of open files is %d, below %d", limit, minDescriptors)
	}
	var failures []error
	for _, d := range host.RuntimeDirs() {
		dir, err := d.Open()
		if err == nil {
			return &Place{dir}, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// InheritedPlace is a Place for a process that inherits the descriptor.
type InheritedPlace struct {
	Descriptor int
	Path       string
}

// Inheritable returns what another process needs for [InheritPlace].
func (p *Place) Inheritable() *InheritedPlace {
	return &InheritedPlace{p.dir.FD(), p.dir.Path()}
}

// InheritPlace takes over the runtime directory of a process that has ended. [Place.Listen]
// replaces the socket of that one.
func InheritPlace(p *InheritedPlace) *Place { return &Place{host.InheritFolder(p.Descriptor, p.Path)} }

// Close closes the runtime directory.
func (p *Place) Close() { p.dir.Close() }

// Server is the control socket of a daemon.
type Server struct {
	source   Source
	folder   *host.Folder
	name     string
	socket   host.Identity // what the name leads to
	listener *net.UnixListener
	owner    uint32
	slots    chan struct{} // holds a value for each client that is served
}

// Listen makes the socket. Its clients wait until [Server.Start]. dev is the device number of
// the mount, which is there, and owner the user of this process. A socket of this name is that of a
// daemon that was killed: its mount is gone, since another one has its number. Listen replaces it.
func (p *Place) Listen(dev uint64, owner uint32, source Source) (s *Server, err error) {
	name, err := socketName(dev)
	if err != nil {
		return nil, err
	}
	folder, err := p.dir.Make(folderName, owner)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			folder.Close()
		}
	}()
	if err := folder.Remove(name); err != nil {
		return nil, err
	}
	listener, err := folder.Listen(name, maxWaiting)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", folder.Path(), name, err)
	}
	s = &Server{
		source: source, folder: folder, name: name, socket: folder.Identify(name), listener: listener,
		owner: owner, slots: make(chan struct{}, maxClients),
	}
	return s, nil
}

// Start serves the clients until [Server.Close].
func (s *Server) Start() { go s.accept() }

// Close removes the socket. Clients that are being served get their reply, if the process goes on.
func (s *Server) Close() error {
	err := s.listener.Close()
	// The mount is gone, and the number of its device may belong to another one already.
	if s.folder.Identify(s.name) == s.socket {
		err = errors.Join(err, s.folder.Remove(s.name))
	}
	s.folder.Close()
	return err
}

// accept serves clients until the socket is closed.
func (s *Server) accept() {
	for {
		s.slots <- struct{}{}
		c, err := s.listener.AcceptUnix()
		switch {
		case err == nil:
			go func() {
				s.serve(c)
				time.Sleep(pause)
				<-s.slots
			}()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			<-s.slots
			time.Sleep(noDescriptorPause)
		}
	}
}

// serve answers one client. A client that goes away, or is too slow, gets no reply.
func (s *Server) serve(c *net.UnixConn) {
	defer c.Close()
	text := s.answer(c)
	if c.SetDeadline(time.Now().Add(replyTime)) == nil {
		_, _ = c.Write(text)
	}
}

// answer returns the reply for a client, with the end of its line.
func (s *Server) answer(c *net.UnixConn) (text []byte) {
	defer func() {
		if v := recover(); v != nil {
			s.source.Failed(fmt.Errorf("panic: %v", v))
			text = encode(reply{Error: "internal error"})
		}
	}()
	if err := c.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return encode(reply{Error: err.Error()})
	}
	// The request comes first: a client may lose a reply if the connection is closed with data that
	// was not read (unix_release_sock).
	request, err := readRequest(c)
	if err != nil {
		return encode(reply{Error: err.Error()})
	}
	switch user, err := host.PeerUser(c); {
	case err != nil:
		return encode(reply{Error: err.Error()})
	case user != s.owner && user != 0:
		return encode(reply{Error: errOtherUser.Error()})
	}
	return s.reply(request)
}

// reply returns the reply to a request.
func (s *Server) reply(request string) []byte {
	switch request {
	case requestInfo:
		m := s.source.Mount()
		return encode(reply{Mount: &m})
	case requestStats:
		stats := s.source.Stats()
		return encode(reply{Stats: &stats})
	}
	return encode(reply{Error: fmt.Sprintf("unknown request %q", request)})
}

// Errors of requests.
var (
	errTooLong = fmt.Errorf("a request has at most %d bytes", maxRequest)
	errNoLine  = errors.New("a request is one line")
	// errOtherUser is that of a client that is neither the user of the daemon nor root.
	errOtherUser = errors.New("not permitted")
)

// readRequest reads one line, without its end.
func readRequest(r io.Reader) (string, error) {
	buf := make([]byte, maxRequest+1)
	for n := 0; ; {
		got, err := r.Read(buf[n:])
		n += got
		if line, _, found := bytes.Cut(buf[:n], []byte{'\n'}); found {
			return string(line), nil
		}
		switch {
		case n == len(buf):
			return "", errTooLong
		case err != nil:
			return "", errNoLine
		}
	}
}

// encode returns a reply as it is sent.
func encode(r reply) []byte {
	text, err := json.Marshal(r)
	switch {
	case err != nil:
		return encode(reply{Error: err.Error()})
	case len(text) >= maxReply:
		return encode(reply{Error: fmt.Sprintf("the reply would have more than %d bytes", maxReply)})
	}
	return append(text, '\n')
}
