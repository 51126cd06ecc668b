package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"eventbroker.io/eventbroker"
)

// subscription is one that the case takes from by hand.
type subscription struct {
	*eventbroker.Subscription
	close context.CancelFunc
}

// wish is what subscribe and run say of the group.
type wish struct {
	As           string
	Group        string
	EventTypes   []string `json:"event_types"`
	AckDeadline  float64  `json:"ack_deadline"`
	ConsumerID   string   `json:"consumer_id"`
	MaxUnsettled int32    `json:"max_unsettled"`
	Error        *refusal
}

func (w wish) options(tenant string) eventbroker.SubscribeOptions {
	return eventbroker.SubscribeOptions{
		Group: w.Group, TenantID: tenant, EventTypes: w.EventTypes, AckDeadline: duration(w.AckDeadline),
		ConsumerID: w.ConsumerID, MaxUnsettled: w.MaxUnsettled,
	}
}

func (p *play) subscribe(arguments json.RawMessage) error {
	var say wish
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	late := time.AfterFunc(duration(15), cancel)
	opened, err := p.client.Subscribe(ctx, say.options(p.tenant))
	late.Stop()
	p.subscriptions[say.As] = &subscription{opened, cancel}
	return say.Error.check(err)
}

// names is one name, or a list of them.
type names []string

func (n *names) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*n = names{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(n))
}

func (p *play) take(arguments json.RawMessage) error {
	var say struct {
		From    names
		Events  []string
		Attempt int
		Counts  map[string]int
		Like    map[string]map[string]string
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ctx, cancel := p.within(0)
	defer cancel()
	missing := map[string]bool{}
	for _, id := range say.Events {
		missing[id] = true
	}
	counts := map[string]int{}
	for len(missing) > 0 {
		from, d, err := p.next(ctx, say.From)
		if err != nil {
			return fmt.Errorf("without %v: %w", keys(missing), err)
		}
		id := d.Event.EventId
		if !missing[id] {
			return fmt.Errorf("%q came, which was not to come", id)
		}
		delete(missing, id)
		counts[from]++
		p.deliveries[id] = append(p.deliveries[id], d)
		if say.Attempt != 0 && d.Attempt != say.Attempt {
			return fmt.Errorf("%s came for attempt %d, not %d", id, d.Attempt, say.Attempt)
		}
		if err := asPublished(d.Event, p.published[id]); err != nil {
			return err
		}
		fields := d.Event.ProtoReflect()
		for name, value := range say.Like[id] {
			field := fields.Descriptor().Fields().ByName(protoreflect.Name(name))
			if got := fields.Get(field).String(); got != value {
				return fmt.Errorf("the %s of %s is %s, not %s", name, id, got, value)
			}
		}
	}
	if say.Counts != nil && !maps.Equal(counts, say.Counts) {
		return fmt.Errorf("they share %v", counts)
	}
	return nil
}

// next is the next delivery to any of some subscriptions.
func (p *play) next(ctx context.Context, from []string) (string, *eventbroker.Delivery, error) {
	for {
		for _, name := range from {
			wait, cancel := ctx, context.CancelFunc(func() {})
			if len(from) > 1 { // a little with each, in turn
				wait, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
			}
			d, err := p.subscriptions[name].Next(wait)
			cancel()
			if err == nil {
				return name, d, nil
			}
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return name, nil, err
			}
		}
	}
}

func (p *play) expectNoneWithin(arguments json.RawMessage) error {
	var say struct {
		From    names
		Seconds float64
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ctx, cancel := p.within(say.Seconds)
	defer cancel()
	_, d, err := p.next(ctx, say.From)
	if err == nil {
		return fmt.Errorf("%q came", d.Event.EventId)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// settling is what ack, nack and extend say.
type settling struct {
	Deliveries []string
	AckIDs     []string `json:"ack_ids"`
	Reason     string
	Action     string
	Delay      *float64
	Seconds    float64
	Outcomes   []string
	Error      *refusal
}

// settle names the deliveries, and checks what became of them.
func (p *play) settle(
	arguments json.RawMessage, do func(say settling, ackIDs []string) ([]eventbroker.Outcome, error),
) error {
	var say settling
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ackIDs := say.AckIDs
	for _, name := range say.Deliveries {
		d, err := p.delivery(name)
		if err != nil {
			return err
		}
		ackIDs = append(ackIDs, d.AckID())
	}
	outcomes, err := do(say, ackIDs)
	if over := say.Error.check(err); over != nil || err != nil {
		return over
	}
	if say.Outcomes == nil {
		say.Outcomes = slices.Repeat([]string{"DONE"}, len(ackIDs))
	}
	var got []string
	for _, outcome := range outcomes {
		got = append(got, strings.TrimPrefix(outcome.String(), "SETTLE_OUTCOME_"))
	}
	return same("outcomes", got, say.Outcomes)
}

// delivery is the last one of an event that was taken; "e1#1" is the first, and so on.
func (p *play) delivery(name string) (*eventbroker.Delivery, error) {
	id, ordinal := numbered(name)
	all := p.deliveries[id]
	if ordinal == 0 {
		ordinal = len(all)
	}
	if ordinal < 1 || ordinal > len(all) {
		return nil, fmt.Errorf("%s was not taken", name)
	}
	return all[ordinal-1], nil
}

func numbered(name string) (string, int) {
	if id, digits, found := strings.Cut(name, "#"); found {
		if ordinal, err := strconv.Atoi(digits); err == nil {
			return id, ordinal
		}
	}
	return name, 0
}

func (p *play) ack(arguments json.RawMessage) error {
	return p.settle(arguments, func(_ settling, ids []string) ([]eventbroker.Outcome, error) {
		return p.client.Ack(p.ctx, ids...)
	})
}

func (p *play) nack(arguments json.RawMessage) error {
	return p.settle(arguments, func(say settling, ids []string) ([]eventbroker.Outcome, error) {
		var options []eventbroker.NackOption
		if say.Delay != nil {
			options = append(options, eventbroker.After(duration(*say.Delay)))
		}
		switch say.Action {
		case "DEAD_LETTER":
			options = append(options, eventbroker.ToDeadLetters())
		case "RELEASE":
			options = append(options, eventbroker.Release())
		}
		return p.client.Nack(p.ctx, ids, say.Reason, options...)
	})
}

func (p *play) extend(arguments json.RawMessage) error {
	return p.settle(arguments, func(say settling, ids []string) ([]eventbroker.Outcome, error) {
		return p.client.Extend(p.ctx, duration(say.Seconds), ids...)
	})
}
