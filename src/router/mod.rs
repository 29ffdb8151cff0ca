//! Who gets what, in memory: subscriptions, matching, fan-out, outboxes.
