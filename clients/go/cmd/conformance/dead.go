package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	eventbrokerv1 "eventbroker.io/eventbroker/v1"
)

// deadLetters waits until those of a group are exactly these.
func (p *play) deadLetters(arguments json.RawMessage) error {
	var say struct {
		Group    string
		Events   []string
		Reasons  map[string]string
		Attempts map[string]int32
		Rejected map[string]bool
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	slices.Sort(say.Events)
	return p.eventually(0, func(ctx context.Context) error {
		request := &eventbrokerv1.ListDeadLettersRequest{Group: say.Group, TenantId: p.tenant}
		answer, err := p.client.DeadLetters.ListDeadLetters(ctx, request)
		if err != nil {
			return err
		}
		var ids []string
		reasons, attempts, rejected := map[string]string{}, map[string]int32{}, map[string]bool{}
		for _, each := range answer.DeadLetters {
			ids = append(ids, each.EventId)
			reasons[each.EventId], attempts[each.EventId], rejected[each.EventId] = each.Reason, each.Attempts, each.Rejected
		}
		slices.Sort(ids)
		switch {
		case !slices.Equal(ids, say.Events):
			return fmt.Errorf("dead letters are %v, not %v", ids, say.Events)
		case say.Reasons != nil && !maps.Equal(reasons, say.Reasons):
			return fmt.Errorf("reasons are %v", reasons)
		case say.Attempts != nil && !maps.Equal(attempts, say.Attempts):
			return fmt.Errorf("attempts are %v", attempts)
		case say.Rejected != nil && !maps.Equal(rejected, say.Rejected):
			return fmt.Errorf("rejected are %v", rejected)
		}
		return nil
	})
}

func (p *play) redrive(arguments json.RawMessage) error {
	var say struct {
		Group     string
		Events    []string
		All       bool
		Redriven  string
		Remaining string
		Error     *refusal
	}
	if err := decode(arguments, &say); err != nil {
		return err
	}
	ctx, cancel := p.within(0)
	defer cancel()
	answer, err := p.client.DeadLetters.RedriveDeadLetters(ctx, &eventbrokerv1.RedriveDeadLettersRequest{
		Group: say.Group, TenantId: p.tenant,
		Filter: &eventbrokerv1.DeadLetterFilter{All: say.All, EventIds: say.Events},
	})
	if over := say.Error.check(err); over != nil || err != nil {
		return over
	}
	got := []string{strconv.FormatInt(answer.Redriven, 10), strconv.FormatInt(answer.Remaining, 10)}
	return same("redriven and remaining", got, []string{say.Redriven, say.Remaining})
}

// controlled asks whoever holds the broker to do something to it: one line, answered with "ok".
func (p *play) controlled(arguments json.RawMessage) error {
	var say struct{ Say, Event, Delivery string }
	if err := decode(arguments, &say); err != nil {
		return err
	}
	line := say.Say
	if say.Event != "" {
		line += " " + say.Event
	}
	if say.Delivery != "" {
		d, err := p.delivery(say.Delivery)
		if err != nil {
			return err
		}
		line += " " + d.AckID()
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(p.ctx, "tcp", "127.0.0.1:"+p.control)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.TrimSpace(answer) != "ok" {
		err = fmt.Errorf("control answers %q", answer)
	}
	return err
}
