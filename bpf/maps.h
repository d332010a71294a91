// All maps of the packet program: key -> value, owner, bound, and what happens when full.

// 0 -> counters by COUNT_*, the segment in hand, its flow's key, and keys of what it is asked for. Per CPU, so that counting costs no bus; one value, so that a
// packet looks it up once. The rest lies here, not on the stack: what is read back from a map is any number to the verifier, so the many ways of taking a
// packet apart become one state; and functions need some of the stack.
struct counters { u64 n[COUNTERS]; struct segment p; struct flow_key k; struct tuple t; struct prefix x; };
BPF_PERCPU_ARRAY(counters, struct counters, 1);
// connection -> its state. The longest unused one is evicted; its open requests become `evicted` in the walk of user space.
BPF_TABLE("lru_hash", struct flow_key, struct flow, flows, FLOWS);
// slot -> payload that came before a missing segment. A direction looks at some slots for a free one; else it takes another's, whose hole then costs its
// message. No hash map, for that would copy a whole value whenever a hole opens.
BPF_ARRAY(held, struct held, HELD_FLOWS);
// 0 -> how many bare acknowledgements are still worth a look, because some segment is missing. Written by all CPUs; losing a write matters not.
BPF_ARRAY(holes, u32, 1);
// interface -> its counters. User space fills and empties it; an interface without entry is watched all the same.
BPF_HASH(taps, u32, struct tap, TAPS);
// ifindex modulo DOMAINS -> domain of that tap. Empty by default: every tap is its own domain.
BPF_ARRAY(domains, struct domain, DOMAINS);
// 0 -> what user space wants.
BPF_ARRAY(settings, struct settings, 1);
// network -> 1 watched, 2 excluded, 0 neither; the longest prefix wins. User space fills it and says when it is full.
BPF_LPM_TRIE(watched, struct prefix, u32, WATCHED);
// connection -> 1: one of the agent's own exports. User space adds it before it connects and takes it out afterwards.
BPF_HASH(ignored, struct tuple, u32, 1024);
// slot -> program of an owner. User space holds it: a program array forgets when its last user-space reference goes.
BPF_PROG_ARRAY(programs, 16);
// 0 -> a fresh flow, too large for the stack.
BPF_PERCPU_ARRAY(fresh_flow, struct flow, 1);
