package eventbroker_test

import (
	"context"

	"eventbroker.io/eventbroker"
)

func ExampleSubscription_All() {
	settle := func(ctx context.Context, subscription *eventbroker.Subscription) error {
		for d, err := range subscription.All(ctx) {
			if err != nil {
				return err
			}
			if _, err := d.Ack(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	_ = settle
}
