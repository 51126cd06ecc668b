package eventbroker

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

const openTimeout = 10 * time.Second

// stream is one Consume call. It brings deliveries and can be drained; settling goes by unary calls, which can be made
// again and outlive it.
type stream struct {
	call   grpc.BidiStreamingClient[eventbrokerv1.ConsumeRequest, eventbrokerv1.ConsumeResponse]
	cancel context.CancelFunc
	opened *eventbrokerv1.Opened
	gone   atomic.Bool
}

func (s *stream) ended() bool { return s.gone.Load() }

func (s *stream) end() {
	s.gone.Store(true)
	s.cancel()
}

func (s *stream) drain() {
	// If it fails the stream is broken, which its reader hears.
	_ = s.call.Send(&eventbrokerv1.ConsumeRequest{
		Request: &eventbrokerv1.ConsumeRequest_Drain{Drain: &eventbrokerv1.Drain{}},
	})
}

// open tries until a stream is open, the broker refuses, or the context ends.
func (s *Subscription) open(ctx context.Context) (*stream, error) {
	for n := 1; ; n++ {
		opened, err := s.openOnce(ctx)
		if err == nil {
			return opened, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		again, atLeast := retryable(err)
		if !again {
			return nil, err
		}
		s.client.options.logger.Warn("eventbroker: cannot subscribe", "group", s.request.Group, "error", err)
		if over := pause(ctx, backoff(n, atLeast)); over != nil {
			return nil, over
		}
		if s.lock.Lock(); s.draining {
			s.lock.Unlock()
			return nil, io.EOF
		}
		s.lock.Unlock()
	}
}

func (s *Subscription) openOnce(ctx context.Context) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(openTimeout, cancel)
	opened, err := s.start(ctx, cancel)
	if !late.Stop() && err == nil {
		err = errEndedEarly
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return opened, nil
}

func (s *Subscription) start(ctx context.Context, cancel context.CancelFunc) (*stream, error) {
	call, err := s.client.subscriber.Consume(ctx)
	if err != nil {
		return nil, err
	}
	// An error of Send is io.EOF: Recv tells the true one.
	_ = call.Send(&eventbrokerv1.ConsumeRequest{Request: &eventbrokerv1.ConsumeRequest_Open{Open: s.request}})
	first, err := call.Recv()
	if err == io.EOF { // the broker shut down before it was open
		err = errEndedEarly
	}
	if err != nil {
		return nil, withoutPrefix(err, "open.")
	}
	opened := &stream{call: call, cancel: cancel, opened: first.GetSubscription().GetOpened()}
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.request.Group != "" {
		s.request.ConsumerId = opened.opened.GetConsumerId() // it takes over from what is left of the stream before
	}
	s.current = opened
	if s.draining {
		opened.drain()
	}
	return opened, nil
}
