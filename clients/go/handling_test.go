package eventbroker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

func consume(t *testing.T, s *server, handle Handler) (stop func() error) {
	client := start(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- client.Consume(ctx, SubscribeOptions{Group: "g"}, handle) }()
	return func() error {
		cancel()
		return <-over
	}
}

func TestAPanicOfAHandlerIsANack(t *testing.T) {
	s := &server{deadline: time.Minute}
	stop := consume(t, s, func(context.Context, *Delivery) error { panic("no\nluck") })
	if nacked := <-s.nacked; nacked.Reason != "panic: no luck" || nacked.AckIds[0] != "a1" {
		t.Error(nacked)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAWrappedRejectionIsARejection(t *testing.T) {
	s := &server{deadline: time.Minute}
	stop := consume(t, s, func(context.Context, *Delivery) error {
		return errors.Join(errors.New("told"), Reject(errors.New("never")))
	})
	if nacked := <-s.nacked; nacked.Action != eventbrokerv1.NackAction_NACK_ACTION_DEAD_LETTER {
		t.Error(nacked)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAHandlerHearsThatItsDeliveryIsLost(t *testing.T) {
	s := &server{
		deadline: 100 * time.Millisecond,
		extend:   func(*eventbrokerv1.ExtendDeadlineRequest) Outcome { return Outdated },
	}
	heard := make(chan error)
	stop := consume(t, s, func(ctx context.Context, _ *Delivery) error {
		<-ctx.Done()
		heard <- context.Cause(ctx)
		return ctx.Err()
	})
	if err := <-heard; !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if err := stop(); err != nil || len(s.nacked) > 0 {
		t.Error(err, "or settled what was lost")
	}
}

func TestAcksOfTheSameTimeShareACall(t *testing.T) {
	var all sync.WaitGroup
	begun, waiting := make(chan string, 200), make(chan struct{})
	s := &server{ack: func(request *eventbrokerv1.AckRequest) {
		begun <- request.AckIds[0]
		<-waiting
	}}
	client := start(t, s)
	ack := func(id string) {
		all.Go(func() {
			if outcomes, err := client.Ack(t.Context(), id); err != nil || len(outcomes) != 1 || outcomes[0] != Done {
				t.Error(outcomes, err)
			}
		})
	}
	ack("first")
	<-begun
	for range 100 {
		ack("other")
	}
	for count := 0; count < 100; time.Sleep(time.Millisecond) { // until they wait for the call of the first
		client.acks.lock.Lock()
		count = len(client.acks.waiting)
		client.acks.lock.Unlock()
	}
	close(waiting)
	all.Wait()
	if len(s.acked) != 2 {
		t.Error(len(s.acked), "calls")
	}
}

func TestAnyTextBecomesAReason(t *testing.T) {
	for text, want := range map[string]string{"": "", "a\r\nb\x00": "a  b ", "\xff\u0085": "\uFFFD "} {
		if got := asReason(text); got != want {
			t.Errorf("%q", got)
		}
	}
	if got := asReason(strings.Repeat("é", 2000)); utf8.RuneCountInString(got) != 1024 {
		t.Error(len(got))
	}
}
