package stats

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

const (
	// maxScrapes is how many requests get a page at a time; others are refused.
	maxScrapes = 4
	// maxHeader is how large the header of a request may be, in bytes.
	maxHeader = 8 << 10
	// scrapeTime is how long a scraper has for sending its request and taking the page.
	scrapeTime = 15 * time.Second
	// endTime is how long scrapers have at the end.
	endTime = 2 * time.Second
	backlog = 16
)

// Serve serves the page at /metrics, over HTTP on a unix socket at path, which only its owner can
// use. read returns the numbers for each page; after an error the scraper gets status 503. Serve
// returns nil after the end of ctx, and the error of read if that is ErrUnmounted or ErrEnded.
func Serve(ctx context.Context, path string, read func() (*control.Stats, error)) error {
	listener, err := host.ListenPrivately(path, backlog)
	if err != nil {
		return fmt.Errorf("cannot listen on %q: %w", path, cause(err))
	}
	ended := make(chan error, maxScrapes)
	server := &http.Server{
		Handler:           pages(read, ended),
		ReadHeaderTimeout: scrapeTime, ReadTimeout: scrapeTime, WriteTimeout: scrapeTime, IdleTimeout: scrapeTime,
		MaxHeaderBytes: maxHeader,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	var reason error
	select {
	case err := <-failed:
		return fmt.Errorf("cannot serve on %q: %w", path, err)
	case reason = <-ended:
	case <-ctx.Done():
	}
	limit, stop := context.WithTimeout(context.Background(), endTime)
	defer stop()
	if err := server.Shutdown(limit); err != nil { // scrapers that are too slow are cut off
		_ = server.Close()
	}
	return reason
}

// pages answers scrapers. It sends the error after which there will be no more numbers to ended.
func pages(read func() (*control.Stats, error), ended chan<- error) http.Handler {
	slots := make(chan struct{}, maxScrapes)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			http.Error(w, "too many requests", http.StatusServiceUnavailable)
			return
		}
		s, err := read()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			if errors.Is(err, ErrUnmounted) || errors.Is(err, ErrEnded) {
				select {
				case ended <- err:
				default: // the end has been requested already
				}
			}
			return
		}
		w.Header().Set("Content-Type", ContentType)
		_, _ = w.Write(Page(s)) // a scraper that has gone misses it
	})
	return mux
}

// cause returns an error without the names of call and address.
func cause(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}
