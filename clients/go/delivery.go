package eventbroker

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/durationpb"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// Delivery is an event handed to this consumer.
type Delivery struct {
	// Event is the event, as it was published.
	Event *Event
	// Attempt is 1 the first time, and one more after each attempt that failed.
	Attempt int
	// IsReplay tells whether a seek made the group get the event again.
	IsReplay bool
	// Deadline is until when the event is this consumer's, by the broker's clock, if it is not extended.
	Deadline time.Time

	ackID   string
	client  *Client
	stream  *stream
	holding *holding
}

// Outcome is what became of an attempt to settle.
type Outcome = eventbrokerv1.SettleOutcome

// What may become of it. Only Done changed anything.
const (
	// Done: the delivery is settled, or has its new deadline.
	Done = eventbrokerv1.SettleOutcome_SETTLE_OUTCOME_DONE
	// AlreadySettled: the event was settled before, maybe by a try of the same call whose answer got lost.
	AlreadySettled = eventbrokerv1.SettleOutcome_SETTLE_OUTCOME_ALREADY_SETTLED
	// Outdated: the delivery is over, and the event is, or will be, delivered again.
	Outdated = eventbrokerv1.SettleOutcome_SETTLE_OUTCOME_OUTDATED
	// Unknown: not an ack id of this broker.
	Unknown = eventbrokerv1.SettleOutcome_SETTLE_OUTCOME_UNKNOWN
)

// AckID names the delivery, for Client.Ack in another place.
func (d *Delivery) AckID() string { return d.ackID }

// Ack settles the delivery: the event is done for the group. Acks that are made at the same time share a call.
func (d *Delivery) Ack(ctx context.Context) (Outcome, error) {
	outcomes, err := d.client.Ack(ctx, d.ackID)
	return first(outcomes), err
}

// Nack gives the delivery back, to be tried again after the group's back-off unless a NackOption says otherwise.
func (d *Delivery) Nack(ctx context.Context, reason string, options ...NackOption) (Outcome, error) {
	outcomes, err := d.client.Nack(ctx, []string{d.ackID}, reason, options...)
	return first(outcomes), err
}

// Extend gives the delivery more time, counted from now.
func (d *Delivery) Extend(ctx context.Context, deadline time.Duration) (Outcome, error) {
	outcomes, err := d.client.Extend(ctx, deadline, d.ackID)
	return first(outcomes), err
}

func first(outcomes []Outcome) Outcome {
	if len(outcomes) == 0 {
		return eventbrokerv1.SettleOutcome_SETTLE_OUTCOME_UNSPECIFIED
	}
	return outcomes[0]
}

// NackOption says what is to become of an event that was not handled.
type NackOption func(*eventbrokerv1.NackRequest)

// After has the event tried again after this time, instead of the group's back-off.
func After(delay time.Duration) NackOption {
	return func(r *eventbrokerv1.NackRequest) { r.Delay = durationpb.New(delay) }
}

// ToDeadLetters makes the event a dead letter now.
func ToDeadLetters() NackOption {
	return func(r *eventbrokerv1.NackRequest) { r.Action = eventbrokerv1.NackAction_NACK_ACTION_DEAD_LETTER }
}

// Release gives the event to any consumer of the group at once, and counts no attempt.
func Release() NackOption {
	return func(r *eventbrokerv1.NackRequest) { r.Action = eventbrokerv1.NackAction_NACK_ACTION_RELEASE }
}

// Ack settles deliveries by their ack ids, which may come from anywhere. One outcome for each, in their order.
func (c *Client) Ack(ctx context.Context, ackIDs ...string) ([]Outcome, error) {
	if len(ackIDs) == 1 {
		return c.acks.ack(ctx, ackIDs[0])
	}
	return c.ackNow(ctx, ackIDs)
}

func (c *Client) ackNow(ctx context.Context, ackIDs []string) ([]Outcome, error) {
	return c.settle(ctx, func(ctx context.Context) (settled, error) {
		return c.subscriber.Ack(ctx, &eventbrokerv1.AckRequest{AckIds: ackIDs})
	})
}

// Nack gives deliveries back by their ack ids. The reason is kept with the attempt; what is too long of it is cut.
func (c *Client) Nack(
	ctx context.Context, ackIDs []string, reason string, options ...NackOption,
) ([]Outcome, error) {
	request := &eventbrokerv1.NackRequest{AckIds: ackIDs, Reason: asReason(reason)}
	for _, option := range options {
		option(request)
	}
	return c.settle(ctx, func(ctx context.Context) (settled, error) { return c.subscriber.Nack(ctx, request) })
}

// Extend gives deliveries more time by their ack ids.
func (c *Client) Extend(ctx context.Context, deadline time.Duration, ackIDs ...string) ([]Outcome, error) {
	request := &eventbrokerv1.ExtendDeadlineRequest{AckIds: ackIDs, Deadline: durationpb.New(deadline)}
	return c.settle(ctx, func(ctx context.Context) (settled, error) {
		return c.subscriber.ExtendDeadline(ctx, request)
	})
}

type settled interface {
	GetResults() []*eventbrokerv1.SettleResult
}

func (c *Client) settle(ctx context.Context, call func(context.Context) (settled, error)) ([]Outcome, error) {
	var outcomes []Outcome
	err := c.repeat(ctx, func(ctx context.Context) error {
		response, err := call(ctx)
		if err != nil {
			return err
		}
		for _, result := range response.GetResults() {
			outcomes = append(outcomes, result.Outcome)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("settling: %w", err)
	}
	return outcomes, nil
}

const mostReason = 1024 // characters

// asReason makes any text one that the broker takes: valid, without control characters, not too long.
func asReason(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if runes := []rune(text); len(runes) > mostReason {
		text = string(runes[:mostReason])
	}
	return text
}
