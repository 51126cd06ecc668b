package eventbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = 10 * time.Second
)

// backoff is how long to wait before try number n (1, 2, ...), with full jitter: whoever failed together does not come
// back together. At least the time that the broker asked for.
func backoff(n int, atLeast time.Duration) time.Duration {
	most := mostBackoff
	if n <= 7 {
		most = min(most, firstBackoff<<(n-1))
	}
	return atLeast + rand.N(most)
}

// pause waits, and fails when the context ends first.
func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// repeat calls until it succeeds, fails for good, or the context ends; each try has its own bound. A context without a
// deadline gets one.
func (c *Client) repeat(ctx context.Context, call func(context.Context) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.options.patience)
		defer cancel()
	}
	unknown := false // what became of a try before
	for n := 1; ; n++ {
		try, cancel := context.WithTimeout(ctx, c.options.tryTimeout)
		err := call(try)
		cancel()
		if unknown {
			err = afterUnknown(err)
		}
		var told *Error
		unknown = unknown || !errors.As(err, &told) || !told.Definite()
		again, atLeast := retryable(err)
		if !again {
			return err
		}
		if over := pause(ctx, backoff(n, atLeast)); over != nil {
			return fmt.Errorf("%w; before that: %w", over, err)
		}
		c.options.logger.Debug("eventbroker: trying again", "try", n+1, "after", err)
	}
}
