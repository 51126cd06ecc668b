package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"eventbroker.io/eventbroker"
)

// Case is one behaviour, as steps.
type Case struct {
	Name         string
	Description  string
	NeedsControl bool                         `json:"needs_control"`
	Steps        []map[string]json.RawMessage // of one verb each
	file         string
}

func load(directory string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(directory, "*.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no cases in %s", directory)
	}
	var all []Case
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var cases []Case
		if err := decode(text, &cases); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, each := range cases {
			each.file = strings.TrimSuffix(filepath.Base(file), ".json")
			all = append(all, each)
		}
	}
	return all, nil
}

// decode is strict: a field that this runner does not know is a step that it would not take.
func decode(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// play is a case under way.
type play struct {
	client        *eventbroker.Client
	control       string
	tenant        string
	ctx           context.Context
	published     map[string]*eventbroker.Event // by event id, as they were stored
	results       map[string][]stored           // by name, what a publish was answered
	position      int64                         // of the last event that was published
	deliveries    map[string][]*eventbroker.Delivery
	subscriptions map[string]*subscription
	workers       map[string]*worker
}

// verbs are what a step can do.
var verbs = map[string]func(*play, json.RawMessage) error{
	"publish": (*play).publish, "create_group": (*play).createGroup, "subscribe": (*play).subscribe, "take": (*play).take,
	"expect_none_within": (*play).expectNoneWithin, "ack": (*play).ack, "nack": (*play).nack, "extend": (*play).extend,
	"run": (*play).run, "expect_handled": (*play).expectHandled, "finish": (*play).finish, "stop": (*play).stop,
	"expect_end": (*play).expectEnd, "dead_letters": (*play).deadLetters, "redrive": (*play).redrive,
	"settled": (*play).settled, "control": (*play).controlled,
}

// run takes the steps in a tenant of its own.
func (c Case) run(client *eventbroker.Client, control string) error {
	ctx, cancel := context.WithTimeout(context.Background(), mostOfCase)
	defer cancel() // which ends all subscriptions, too
	p := &play{
		client: client, control: control, ctx: ctx,
		tenant:        "t-" + eventbroker.NewID(),
		published:     map[string]*eventbroker.Event{},
		results:       map[string][]stored{},
		deliveries:    map[string][]*eventbroker.Delivery{},
		subscriptions: map[string]*subscription{},
		workers:       map[string]*worker{},
	}
	for number, step := range c.Steps {
		for verb, arguments := range step {
			act, known := verbs[verb]
			if !known {
				return fmt.Errorf("step %d: there is no verb %s", number+1, verb)
			}
			if err := act(p, arguments); err != nil {
				return fmt.Errorf("step %d, %s: %w", number+1, verb, err)
			}
		}
	}
	return nil
}

// within bounds a wait; without a number it is 15 s.
func (p *play) within(seconds float64) (context.Context, context.CancelFunc) {
	if seconds == 0 {
		seconds = 15
	}
	return context.WithTimeout(p.ctx, duration(seconds))
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// eventually asks until the answer is nil.
func (p *play) eventually(seconds float64, ask func(context.Context) error) error {
	ctx, cancel := p.within(seconds)
	defer cancel()
	for {
		answer := ask(ctx)
		if answer == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not in time: %w", answer)
		}
	}
}

func same[T comparable](what string, got, want []T) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s are %v, not %v", what, got, want)
	}
	return nil
}

func keys[V any](of map[string]V) []string { return slices.Sorted(maps.Keys(of)) }
