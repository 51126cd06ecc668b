package eventbroker

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// SubscribeOptions say what a consumer wants. What is left out is the group's, or the broker's default.
type SubscribeOptions struct {
	// Group is the consumer group. Empty: an ephemeral one, which ends when its connection breaks.
	Group string
	// TenantID is the tenant whose events the group gets. Empty: the caller's, or all.
	TenantID string
	// EventTypes are names such as "user.created", wildcards such as "user.*", or "*".
	EventTypes []string
	// ConsumerID names this consumer, the same over reconnects. Empty: the broker makes one up.
	ConsumerID string
	// Start is where a group starts that is made by this.
	Start eventbrokerv1.StartPoint
	// AckDeadline is how long the consumers of the group have to settle an event, when it is made by this.
	AckDeadline time.Duration
	// MaxUnsettled is how many events this consumer may have out. For Consume it is twice Concurrency by default.
	MaxUnsettled int32
	// MaxUnsettledBytes is their size.
	MaxUnsettledBytes int64

	// Concurrency is how many handlers Consume runs at once. Default 16.
	Concurrency int
	// DrainTimeout is how long Consume waits for its handlers when its context ends. Default 30 s.
	DrainTimeout time.Duration
}

func (o SubscribeOptions) request() *eventbrokerv1.SubscribeRequest {
	request := &eventbrokerv1.SubscribeRequest{
		Group: o.Group, TenantId: o.TenantID, EventTypes: o.EventTypes, ConsumerId: o.ConsumerID, Start: o.Start,
		FlowControl: &eventbrokerv1.FlowControl{
			MaxUnsettledEvents: o.MaxUnsettled, MaxUnsettledBytes: o.MaxUnsettledBytes,
		},
	}
	if o.AckDeadline != 0 {
		request.AckDeadline = durationpb.New(o.AckDeadline)
	}
	return request
}

// Subscription is a consumer of a group. It reconnects by itself; what it held when a connection broke comes again, to it
// or to others. Its methods are safe for concurrent use.
type Subscription struct {
	client     *Client
	request    *eventbrokerv1.SubscribeRequest
	deliveries chan *Delivery
	holding    *holding      // of a Consume; nil: nobody extends deadlines
	deadline   time.Duration // of the group
	over       chan struct{} // closed when no more will come
	err        error         // why, once over

	lock     sync.Mutex
	current  *stream
	draining bool
}

// Subscribe joins a group. It returns when the broker has answered, which it tries until then unless the broker refuses;
// the subscription lives until the context ends.
//
// Every delivery must be settled before its deadline, or extended: Consume does that for you.
func (c *Client) Subscribe(ctx context.Context, options SubscribeOptions) (*Subscription, error) {
	return c.subscribe(ctx, options, nil)
}

func (c *Client) subscribe(ctx context.Context, options SubscribeOptions, holding *holding) (*Subscription, error) {
	s := &Subscription{client: c, request: options.request(), holding: holding, over: make(chan struct{})}
	first, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	// As much as may be out: to take in what the broker sends seldom waits for Next.
	s.deliveries = make(chan *Delivery, first.opened.GetFlowControl().GetMaxUnsettledEvents())
	s.deadline = first.opened.GetAckDeadline().AsDuration()
	go s.run(ctx, first)
	return s, nil
}

// Next waits for the next delivery. io.EOF: the subscription was drained.
func (s *Subscription) Next(ctx context.Context) (*Delivery, error) {
	for {
		select {
		case d := <-s.deliveries:
			if d.stream.ended() {
				continue // comes again
			}
			return d, nil
		default:
		}
		select {
		case d := <-s.deliveries:
			if !d.stream.ended() {
				return d, nil
			}
		case <-s.over:
			return nil, s.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// All ranges over the deliveries until the subscription or the context ends; the error comes last, and none if the
// subscription was drained.
func (s *Subscription) All(ctx context.Context) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for {
			d, err := s.Next(ctx)
			if err == io.EOF || !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// Drain says that no more is wanted. What is out can be settled; then the subscription ends, and Next answers io.EOF. What
// was sent already still comes out of Next.
func (s *Subscription) Drain() {
	s.lock.Lock()
	defer s.lock.Unlock()
	if !s.draining && s.current != nil {
		s.current.drain()
	}
	s.draining = true
}

// run reads stream after stream until there is to be no other.
func (s *Subscription) run(ctx context.Context, current *stream) {
	defer close(s.over)
	for n := 1; ; n++ {
		began := time.Now()
		closing, err := s.read(ctx, current)
		current.end()
		if s.holding != nil {
			s.holding.lose(current)
		}
		if s.err = s.farewell(ctx, closing, err); s.err != nil {
			return
		}
		s.client.options.logger.Info("eventbroker: subscribing again", "group", s.request.Group,
			"closing", closing.GetReason(), "error", err)
		if time.Since(began) > mostBackoff {
			n = 1
		}
		if s.err = pause(ctx, backoff(n, closing.GetRetryAfter().AsDuration())); s.err != nil {
			return
		}
		if current, s.err = s.open(ctx); s.err != nil {
			return
		}
	}
}

// farewell tells why a stream was the last one; nil: it was not.
func (s *Subscription) farewell(ctx context.Context, closing *eventbrokerv1.Closing, err error) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.current = nil
	switch closing.GetReason() {
	case eventbrokerv1.ClosingReason_CLOSING_REASON_REPLACED:
		return ErrReplaced
	case eventbrokerv1.ClosingReason_CLOSING_REASON_GROUP_DELETED:
		return ErrGroupDeleted
	}
	switch again, _ := retryable(err); {
	case s.draining:
		return io.EOF // whatever ended it, nothing is out any more
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !errors.Is(err, io.EOF) && !again:
		return err
	case s.request.Group == "" && err == nil:
		return io.ErrUnexpectedEOF
	case s.request.Group == "":
		return err // the group is gone with its stream, and with it the place in the log
	}
	return nil
}

// read takes in what a stream brings until it ends.
func (s *Subscription) read(ctx context.Context, current *stream) (*eventbrokerv1.Closing, error) {
	var closing *eventbrokerv1.Closing
	for {
		message, err := current.call.Recv()
		if err == io.EOF {
			return closing, nil
		}
		if err != nil {
			return closing, err
		}
		switch said := message.GetSubscription().GetResponse().(type) {
		case *eventbrokerv1.SubscribeResponse_Closing:
			closing = said.Closing
		case *eventbrokerv1.SubscribeResponse_Deliveries:
			deadline := said.Deliveries.AckDeadline.AsTime()
			for _, each := range said.Deliveries.Deliveries {
				d := &Delivery{
					Event: each.Event, Attempt: int(each.Attempt), IsReplay: each.IsReplay, Deadline: deadline,
					ackID: each.AckId, client: s.client, stream: current, holding: s.holding,
				}
				if s.holding != nil {
					s.holding.take(d)
				}
				select {
				case s.deliveries <- d:
				case <-ctx.Done():
					return closing, context.Cause(ctx)
				}
			}
		}
	}
}
