-- Each event's view of its host: the newest figures, and the window that ends with it.
-- Grain: an event that takes its boot forward. Key: host_id. Lateness: an event whose monotonic_ns is not above all before
-- it of its boot (late, repeated) has no row; it is left out of everything.
-- The window is [append_time - window, append_time] and never reaches back over a boot: what a host had free and how busy
-- it was before says nothing of it now. The function keeps it: it has seen every event of the host, and forgets those that
-- have left, so that an event costs the same whatever the window, and a host that reboots takes no more state.
-- A row depends on its host's events alone, not on when it is written: the sink may leave out any but the newest.
CREATE TEMPORARY VIEW host_window AS
SELECT *
FROM host_window(
  events => TABLE usage_arrived PARTITION BY host_id,
  on_time => DESCRIPTOR(append_time),
  uid => 'host_window'
)
