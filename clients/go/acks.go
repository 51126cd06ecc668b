package eventbroker

import (
	"context"
	"sync"
)

const mostAcks = 1000 // in one call

// acks joins acks into few calls: those that come while a call is under way wait, and go together in the next one.
type acks struct {
	client  *Client
	lock    sync.Mutex
	waiting []ack
	busy    bool
}

type ack struct {
	id   string
	done chan<- acked
}

type acked struct {
	outcomes []Outcome
	err      error
}

// ack waits for the outcome. When its context ends first the ack may still be made.
func (a *acks) ack(ctx context.Context, id string) ([]Outcome, error) {
	done := make(chan acked, 1)
	a.lock.Lock()
	a.waiting = append(a.waiting, ack{id, done})
	if !a.busy {
		a.busy = true
		go a.flush()
	}
	a.lock.Unlock()
	select {
	case said := <-done:
		return said.outcomes, said.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *acks) flush() {
	for {
		a.lock.Lock()
		count := min(len(a.waiting), mostAcks)
		batch := a.waiting[:count:count]
		a.waiting = a.waiting[count:]
		a.busy = count > 0
		a.lock.Unlock()
		if count == 0 {
			return
		}
		ids := make([]string, count)
		for number, each := range batch {
			ids[number] = each.id
		}
		outcomes, err := a.client.ackNow(context.Background(), ids)
		for number, each := range batch {
			if err != nil {
				each.done <- acked{err: err}
			} else {
				each.done <- acked{outcomes: outcomes[number : number+1]}
			}
		}
	}
}
