package eventbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"
)

// Handler handles an event. nil acks it. An error nacks it, with the error as the reason: it is tried again after the
// group's back-off, unless Reject or RetryAfter said otherwise. A panic is an error.
//
// The delivery's deadline is extended for as long as the handler runs. The context ends with ErrLost when the delivery is
// over anyway, and when DrainTimeout is.
type Handler func(ctx context.Context, delivery *Delivery) error

// Reject wraps a handler's error: no attempt can succeed, the event is to be a dead letter.
func Reject(err error) error { return verdict{err, ToDeadLetters()} }

// RetryAfter wraps a handler's error: the event is to be tried again after this time.
func RetryAfter(err error, delay time.Duration) error { return verdict{err, After(delay)} }

type verdict struct {
	error
	option NackOption
}

func (v verdict) Unwrap() error { return v.error }

// Consume hands the events of a group to a handler, several at a time, and settles them by what it returns. It
// reconnects by itself, and ends with an error only when the broker refuses, the group was deleted, or another consumer
// took over this one's id.
//
// When the context ends it drains: no more handlers start, those that run may end, their events are settled, and the rest
// goes to other consumers at once. Then it returns nil.
func (c *Client) Consume(ctx context.Context, options SubscribeOptions, handle Handler) error {
	if options.Concurrency == 0 {
		options.Concurrency = 16
	}
	if options.MaxUnsettled == 0 {
		options.MaxUnsettled = int32(min(2*options.Concurrency, 10_000))
	}
	if options.DrainTimeout == 0 {
		options.DrainTimeout = 30 * time.Second
	}
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stopped := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	holding := newHolding(c, life)
	s, err := c.subscribe(life, options, holding)
	if !stopped() || err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer context.AfterFunc(ctx, func() {
		s.Drain()
		time.AfterFunc(options.DrainTimeout, func() { end(ErrLost) })
		s.each(life, c.release)
	})()
	go holding.extend(s)

	var workers sync.WaitGroup
	for range options.Concurrency {
		workers.Go(func() {
			s.each(life, func(d *Delivery) {
				if ctx.Err() != nil {
					c.release(d)
				} else {
					c.handle(d, handle)
				}
			})
		})
	}
	workers.Wait()
	if ctx.Err() != nil || errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

// each calls for every delivery until there are no more.
func (s *Subscription) each(life context.Context, do func(*Delivery)) {
	for {
		d, err := s.Next(life)
		if err != nil {
			return
		}
		do(d)
	}
}

// release gives a delivery that no handler has seen to another consumer.
func (c *Client) release(d *Delivery) {
	c.warn(d, "release", d.settle(d.Nack(context.Background(), "", Release())))
}

// handle runs the handler for one delivery, and settles it.
func (c *Client) handle(d *Delivery, handle Handler) {
	ctx := d.holding.context(d)
	if ctx.Err() != nil {
		return
	}
	failed := protected(ctx, d, handle)
	if errors.Is(context.Cause(ctx), ErrLost) {
		c.warn(d, "the delivery was lost while it was handled", failed)
		return
	}
	// Settling is tried for as long as the patience lasts, also when the client drains.
	if failed == nil {
		c.warn(d, "ack", d.settle(d.Ack(context.Background())))
		return
	}
	c.warn(d, "handler", failed)
	var options []NackOption
	var said verdict
	if errors.As(failed, &said) {
		options = append(options, said.option)
	}
	reason := failed.Error()
	if reason == "" {
		reason = fmt.Sprintf("%T", failed)
	}
	c.warn(d, "nack", d.settle(d.Nack(context.Background(), reason, options...)))
}

func protected(ctx context.Context, d *Delivery, handle Handler) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			d.client.options.logger.Error("eventbroker: a handler panicked", "event", d.Event.EventId,
				"panic", panicked, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	return handle(ctx, d)
}

// settle ends the holding of a delivery; it passes the error on.
func (d *Delivery) settle(_ Outcome, err error) error {
	d.holding.drop(d, nil)
	return err
}

func (c *Client) warn(d *Delivery, what string, err error) {
	if err != nil {
		c.options.logger.Warn("eventbroker: "+what, "event", d.Event.EventId, "attempt", d.Attempt, "error", err)
	}
}
