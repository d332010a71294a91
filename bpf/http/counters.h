// What the HTTP source counts. opened = answered + reset + closed + given_up + open now + evicted; answered + reset + closed = sent + lost.
#define HTTP_COUNTERS(COUNT) \
  COUNT(opened)                  /* request heads that were complete */ \
  COUNT(answered)                /* exchanges that ended with their response */ \
  COUNT(reset)                   /* that ended with a RST */ \
  COUNT(closed)                  /* that ended with a FIN */ \
  COUNT(given_up)                /* that could not be told from others after a loss, at the end of their connection */ \
  COUNT(sent)                    /* records handed to user space */ \
  COUNT(lost)                    /* records for which there was no room */ \
  COUNT(unpaired)                /* final responses without a certain request */ \
  COUNT(resync_joined)           /* directions joined in mid-connection */ \
  COUNT(resync_gap)              /* losses of position: bytes that were never seen */ \
  COUNT(resync_syntax)           /* not HTTP/1 where it should have been */ \
  COUNT(resync_budget)           /* more messages in one frame than a run may read */ \
  COUNT(resync_carry)            /* the kept part of a head was evicted */ \
  COUNT(resync_truncated)        /* a capture that left bytes out */ \
  COUNT(resync_unpaired)         /* after a response without a request: where it ends is not known */ \
  COUNT(resynchronised)          /* times that pairing became certain again */ \
  COUNT(length_conflict)         /* contradictory, empty or invalid Content-Length */
#define HTTP_ENUM(name) HTTP_COUNT_##name,
enum { HTTP_COUNTERS(HTTP_ENUM) HTTP_COUNTERS_MANY };
