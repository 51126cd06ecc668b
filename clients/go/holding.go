package eventbroker

import (
	"context"
	"sync"
	"time"
)

// holding is what a Consume has out: it extends its deadlines, and ends the contexts of handlers whose delivery is lost.
type holding struct {
	client *Client
	life   context.Context
	lock   sync.Mutex
	held   map[*Delivery]held
}

type held struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func newHolding(client *Client, life context.Context) *holding {
	return &holding{client: client, life: life, held: map[*Delivery]held{}}
}

func (h *holding) take(d *Delivery) {
	ctx, end := context.WithCancelCause(h.life)
	h.lock.Lock()
	defer h.lock.Unlock()
	h.held[d] = held{ctx, end}
}

// context is that of the delivery's handler; one that is over, if it is lost already.
func (h *holding) context(d *Delivery) context.Context {
	h.lock.Lock()
	defer h.lock.Unlock()
	if has, ok := h.held[d]; ok {
		return has.ctx
	}
	lost, end := context.WithCancelCause(h.life)
	end(ErrLost)
	return lost
}

func (h *holding) drop(d *Delivery, cause error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if has, ok := h.held[d]; ok {
		has.end(cause)
		delete(h.held, d)
	}
}

// lose drops all that came by a stream.
func (h *holding) lose(ended *stream) {
	for _, d := range h.all() {
		if d.stream == ended {
			h.drop(d, ErrLost)
		}
	}
}

func (h *holding) all() []*Delivery {
	h.lock.Lock()
	defer h.lock.Unlock()
	all := make([]*Delivery, 0, len(h.held))
	for d := range h.held {
		all = append(all, d)
	}
	return all
}

// extend gives what is held more time, three times in each deadline, until the subscription is over.
func (h *holding) extend(s *Subscription) {
	deadline := s.deadline
	tick := time.NewTicker(deadline / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.over:
			return
		}
		deliveries := h.all()
		if len(deliveries) == 0 {
			continue
		}
		ids := make([]string, len(deliveries))
		for number, d := range deliveries {
			ids[number] = d.ackID
		}
		ctx, cancel := context.WithTimeout(h.life, deadline/3)
		outcomes, err := h.client.Extend(ctx, deadline, ids...)
		cancel()
		if err != nil {
			h.client.options.logger.Warn("eventbroker: cannot extend deadlines", "error", err)
			continue
		}
		for number, outcome := range outcomes {
			if outcome == Outdated {
				h.drop(deliveries[number], ErrLost)
			}
		}
	}
}
