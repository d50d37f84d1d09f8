package journal

import "unsafe"

// An Area holds the request that one reader serves. The kernel copies the request there, so that it
// is known after the death of the process, however early that comes.
type Area struct {
	j     *Journal
	index uint32
	head  *areaHeader
	// Request is where the request goes.
	Request []byte
}

// Take returns an area that is not in use. nil: there is none.
func (j *Journal) Take() *Area {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, err := take(&j.freeAreas, &j.head.areas, maxAreas)
	if err != nil {
		return nil
	}
	a := j.area(i)
	a.head.grants, a.head.mark = 0, 0
	clear(a.Request[:8])
	// If the process is killed while the kernel copies a request to a page that has no memory yet, the
	// copy fails and the request is EIO (fuse_dev_do_read).
	for at := 0; at < len(a.Request); at += page {
		a.Request[at] = 0
	}
	return a
}

func (j *Journal) area(i uint32) *Area {
	at := areasAt + int(i)*areaSize
	return &Area{
		j: j, index: i, head: (*areaHeader)(unsafe.Pointer(&j.mem[at])),
		Request: j.mem[at+areaHead : at+areaSize : at+areaSize],
	}
}

// Release gives the area back.
func (a *Area) Release() {
	a.Done()
	a.j.mu.Lock()
	defer a.j.mu.Unlock()
	a.j.freeAreas = append(a.j.freeAreas, a.index)
}

// Done notes that the request was answered. The first bytes of a request are its length, which is
// never 0.
func (a *Area) Done() {
	clear(a.Request[:8])
	a.head.grants, a.head.mark = 0, 0
}

// SetMark notes a value with the request.
func (a *Area) SetMark(mark uint64) { a.head.mark = mark }

// Grant notes that the reply to the request gives the kernel a reference to each of the nodes. Call
// it before the reply is sent.
func (a *Area) Grant(ids []uint64) {
	j := a.j
	j.mu.Lock()
	defer j.mu.Unlock()
	// Counted first, and listed one by one: a kill leaves a reference too many, never one too few.
	for _, id := range ids[:min(len(ids), maxGrants)] {
		if i, known := j.byID[id]; known {
			j.node(i).granted++
			a.head.ids[a.head.grants] = id
			a.head.grants++
		}
	}
}

// Interrupted is a request that was being served when the process died.
type Interrupted struct {
	// Request is the request, as far as it fits. It is valid until [Journal.ClearAreas].
	Request []byte
	Mark    uint64
	area    *Area
}

// Interrupted returns the requests that were being served.
func (j *Journal) Interrupted() (list []Interrupted) {
	for i := range j.head.areas {
		a := j.area(i)
		n := *(*uint32)(unsafe.Pointer(&a.Request[0]))
		if n > 0 && int(n) <= len(a.Request) {
			list = append(list, Interrupted{a.Request[:n], a.head.mark, a})
		}
	}
	return list
}

// Revoke takes the references of a reply back that was not sent.
func (r *Interrupted) Revoke() {
	head := r.area.head
	for ; head.grants > 0; head.grants-- {
		id := head.ids[head.grants-1]
		head.ids[head.grants-1] = 0 // first: a kill leaves a reference too many
		r.area.j.Forget(id, 1)
	}
}

// ClearAreas forgets all interrupted requests.
func (j *Journal) ClearAreas() {
	for i := range j.head.areas {
		j.area(i).Done()
	}
	j.head.areas = 0
}
