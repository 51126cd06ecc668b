/**
 * The client of the event broker: it publishes events, and hands events to handlers.
 *
 * <p>It is thin: events, results and groups are the messages of the contract ({@code io.eventbroker.v1}), and what it
 * adds is what every service would have to write for itself: publishing again when the outcome is not known, staying
 * subscribed, giving handlers the time that they need, and errors that tell what was wrong. Begin with {@link
 * io.eventbroker.EventBroker#connect(String)}.
 */
package io.eventbroker;
