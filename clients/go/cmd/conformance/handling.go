package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"eventbroker.io/eventbroker"
)

// action is what a handler does with an event: hold it until `finish`, then fail or succeed.
type action struct {
	Hold       bool
	Fail       string
	Reject     string
	RetryAfter *float64 `json:"retry_after"`
}

// worker is a Consume under way, with what its handler saw.
type worker struct {
	drain context.CancelFunc
	over  chan struct{}
	err   error
	acts  map[string][]action

	lock        sync.Mutex
	begun, done map[string]int
	finished    map[string]chan struct{}
}

func (p *play) run(arguments json.RawMessage) error {
	var say struct {
		wish
		Concurrency int
		On          map[string][]action
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	options := say.options(p.tenant)
	options.Concurrency = say.Concurrency
	ctx, cancel := context.WithCancel(p.ctx)
	w := &worker{
		drain: cancel, over: make(chan struct{}), acts: say.On,
		begun: map[string]int{}, done: map[string]int{}, finished: map[string]chan struct{}{},
	}
	for id := range say.On {
		w.finished[id] = make(chan struct{})
	}
	p.workers[say.As] = w
	go func() {
		defer close(w.over)
		w.err = p.client.Consume(ctx, options, w.handle)
	}()
	return nil
}

func (w *worker) handle(ctx context.Context, d *eventbroker.Delivery) error {
	id := d.Event.EventId
	w.lock.Lock()
	w.begun[id]++
	var act action
	if ordinal := w.begun[id]; ordinal <= len(w.acts[id]) {
		act = w.acts[id][ordinal-1]
	}
	w.lock.Unlock()
	if act.Hold {
		select {
		case <-w.finished[id]:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	w.lock.Lock()
	w.done[id]++
	w.lock.Unlock()
	switch {
	case act.Reject != "":
		return eventbroker.Reject(errors.New(act.Reject))
	case act.RetryAfter != nil:
		return eventbroker.RetryAfter(errors.New(act.Fail), duration(*act.RetryAfter))
	case act.Fail != "":
		return errors.New(act.Fail)
	}
	return nil
}

func (w *worker) count(state, id string) int {
	w.lock.Lock()
	defer w.lock.Unlock()
	if state == "begun" {
		return w.begun[id]
	}
	return w.done[id]
}

func (p *play) expectHandled(arguments json.RawMessage) error {
	var say struct {
		By     string
		Events []string
		State  string
		Times  int
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	w := p.workers[say.By]
	for _, name := range say.Events {
		id, ordinal := numbered(name)
		err := p.eventually(0, func(context.Context) error {
			select {
			case <-w.over:
				if w.err != nil {
					return w.err
				}
			default:
			}
			if count := w.count(say.State, id); count < max(ordinal, 1) {
				return fmt.Errorf("%s was handled %d times", id, count)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if count := w.count("begun", id); say.Times != 0 && count != say.Times {
			return fmt.Errorf("%s was handled %d times, not %d", id, count, say.Times)
		}
	}
	return nil
}

func (p *play) finish(arguments json.RawMessage) error {
	var say struct {
		By     string
		Events []string
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	for _, id := range say.Events {
		close(p.workers[say.By].finished[id])
	}
	return nil
}

func (p *play) stop(arguments json.RawMessage) error {
	var say struct{ Who, How string }
	if err := decode(arguments, &say); err != nil {
		return err
	}
	if w := p.workers[say.Who]; w != nil && say.How == "drain" {
		w.drain()
		return nil
	}
	if s := p.subscriptions[say.Who]; s != nil && say.How == "close" {
		s.close()
		return nil
	}
	return fmt.Errorf("cannot %s %s", say.How, say.Who)
}

var endings = map[string]error{
	"": nil, "REPLACED": eventbroker.ErrReplaced, "GROUP_DELETED": eventbroker.ErrGroupDeleted,
}

func (p *play) expectEnd(arguments json.RawMessage) error {
	var say struct{ Who, Error string }
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ctx, cancel := p.within(0)
	defer cancel()
	var err error
	if w := p.workers[say.Who]; w != nil {
		select {
		case <-w.over:
			err = w.err
		case <-ctx.Done():
			return fmt.Errorf("it goes on")
		}
	} else {
		_, err = p.subscriptions[say.Who].Next(ctx)
	}
	if !errors.Is(err, endings[say.Error]) {
		return fmt.Errorf("it ended with %w", err)
	}
	return nil
}
