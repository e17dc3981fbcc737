/* Publishes sensor events, awaits their results, prints one line of JSON with what it saw.
 *
 * Event i goes to in/dev<i mod D> with the dense sequence number first + i / D, QoS 1. A result is
 * matched by device (a level of its topic) and number (in its payload), so lost, duplicated and
 * foreign messages are counted, not guessed. Two ways to load:
 *   --rate R   open loop: event i is due at start + i / R. Latency counts from that instant, whenever
 *              the event really left, so a stalled daemon cannot hide its queue (no coordinated omission).
 *   --rate 0   closed loop: --window events are outstanding at all times; the rate is what comes back
 *              between --warm-s and --seconds. */
#define _GNU_SOURCE
#include "mqtt_wire.h"

#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { VALUES_PER_EVENT = 16, BURST_EVENTS = 256, FIFO_PRIORITY = 10 };
static const int64_t SECOND_NS = 1000000000LL;

typedef struct {
    int port, devices, device_level, window;
    int64_t first_seq;
    double rate_per_s, seconds, warm_s, drain_s;
    const char *filter, *marker; /* marker: text in the payload after which "seq" is looked for; "" = anywhere */
    bool fifo;
} options;

typedef struct {
    int64_t *scheduled_ns; /* per event; negative once its result is there */
    int64_t *latency_ns;   /* of results of events scheduled after the warm-up */
    size_t capacity;
    int64_t sent, acknowledged, received, duplicates, foreign, samples, received_in_window, last_result_ns;
    unsigned packet_id;
} tally;

/* ---- options ---- */

static options parse_options(int argc, char **argv) {
    options o = {.devices = 50, .device_level = 1, .window = 1000, .seconds = 3, .warm_s = 0.5, .drain_s = 10,
                 .filter = "out/+", .marker = ""};
    static const struct option names[] = {
        {"port", 1, 0, 'p'},   {"rate", 1, 0, 'r'},    {"seconds", 1, 0, 's'},   {"warm-s", 1, 0, 'w'},
        {"drain-s", 1, 0, 'd'}, {"window", 1, 0, 'o'}, {"devices", 1, 0, 'n'},   {"first-seq", 1, 0, 'f'},
        {"filter", 1, 0, 'F'}, {"marker", 1, 0, 'm'},  {"device-level", 1, 0, 'l'}, {"fifo", 0, 0, 'R'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'p': o.port = atoi(optarg); break;
        case 'r': o.rate_per_s = atof(optarg); break;
        case 's': o.seconds = atof(optarg); break;
        case 'w': o.warm_s = atof(optarg); break;
        case 'd': o.drain_s = atof(optarg); break;
        case 'o': o.window = atoi(optarg); break;
        case 'n': o.devices = atoi(optarg); break;
        case 'f': o.first_seq = atoll(optarg); break;
        case 'F': o.filter = optarg; break;
        case 'm': o.marker = optarg; break;
        case 'l': o.device_level = atoi(optarg); break;
        case 'R': o.fifo = true; break;
        default: die("unknown option; the options stand in parse_options of loadgen.c");
        }
    }
    if (o.port <= 0 || o.devices <= 0 || o.window <= 0 || o.seconds <= o.warm_s || o.rate_per_s < 0) {
        die("expected --port, and --seconds above --warm-s, and positive --devices and --window");
    }
    return o;
}

static bool become_realtime(void) {
    struct sched_param priority = {.sched_priority = FIFO_PRIORITY};
    return sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
}

/* ---- events out ---- */

static void grow(tally *t) {
    t->capacity = t->capacity ? t->capacity * 2 : 1 << 18;
    t->scheduled_ns = realloc(t->scheduled_ns, t->capacity * sizeof *t->scheduled_ns);
    t->latency_ns = realloc(t->latency_ns, t->capacity * sizeof *t->latency_ns);
    if (!t->scheduled_ns || !t->latency_ns) {
        die("out of memory: times of %zu events", t->capacity);
    }
}

/* splitmix64: noise, so that a store which compresses gets nothing for free from a generator that repeats itself. */
static uint64_t noise(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static int write_event(char *out, size_t size, int device, int64_t seq, uint64_t random) {
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    int n = snprintf(out, size, "{\"device_id\":\"dev%04d\",\"sensor\":\"vib\",\"ts\":%lld,\"seq\":%lld,\"values\":[",
                     device, wall.tv_sec * 1000LL + wall.tv_nsec / 1000000, (long long)seq);
    for (int i = 0; i < VALUES_PER_EVENT; i++) { /* digits by hand: snprintf would make this the slowest part */
        uint64_t number = noise(&random) % 10000;
        int whole = (int)(number / 1000), thousandths = (int)(number % 1000);
        const char digits[] = {(char)('0' + whole), '.', (char)('0' + thousandths / 100),
                               (char)('0' + thousandths / 10 % 10), (char)('0' + thousandths % 10),
                               i + 1 < VALUES_PER_EVENT ? ',' : ']'};
        memcpy(out + n, digits, sizeof digits);
        n += (int)sizeof digits;
    }
    out[n++] = '}';
    return n;
}

static void publish_next(connection *c, const options *o, tally *t, int64_t scheduled_ns) {
    char payload[512], topic[32];
    int device = (int)(t->sent % o->devices);
    int topic_length = snprintf(topic, sizeof topic, "in/dev%04d", device);
    int length = write_event(payload, sizeof payload, device, o->first_seq + t->sent / o->devices,
                             (uint64_t)(o->first_seq * o->devices + t->sent));
    t->packet_id = next_packet_id(t->packet_id);
    mqtt_append_publish(c, topic, (size_t)topic_length, payload, (size_t)length, t->packet_id);
    if ((size_t)t->sent == t->capacity) {
        grow(t);
    }
    t->scheduled_ns[t->sent++] = scheduled_ns;
}

/* When event number `index` is due; in a closed loop everything is due until the end of the run. */
static int64_t due_ns(const options *o, int64_t index, int64_t start_ns) {
    return o->rate_per_s > 0 ? start_ns + (int64_t)((double)index * 1e9 / o->rate_per_s) : start_ns;
}

/* Every device gets equally many events, so that the next run can go on with dense numbers. */
static bool sending_is_over(const options *o, const tally *t, int64_t now_ns, int64_t end_ns) {
    bool round_is_full = t->sent % o->devices == 0;
    if (o->rate_per_s > 0) {
        return round_is_full && (double)t->sent >= o->rate_per_s * o->seconds;
    }
    return round_is_full && now_ns >= end_ns;
}

static void publish_due(connection *c, const options *o, tally *t, int64_t start_ns, int64_t end_ns) {
    int64_t now_ns = monotonic_ns();
    for (int burst = 0; burst < BURST_EVENTS; burst++) {
        if (sending_is_over(o, t, now_ns, end_ns) || t->sent - t->acknowledged >= c->receive_maximum) {
            return;
        }
        if (o->rate_per_s > 0) {
            int64_t due = due_ns(o, t->sent, start_ns);
            if (due > now_ns) {
                return;
            }
            publish_next(c, o, t, due);
        } else if (t->sent - t->received < o->window) {
            publish_next(c, o, t, now_ns);
        } else {
            return;
        }
    }
}

/* ---- results in ---- */

/* Digits at `at`, or -1. */
static int64_t number_at(const uint8_t *at, const uint8_t *end) {
    int64_t value = -1;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        value = (value < 0 ? 0 : value) * 10 + (*at - '0');
    }
    return value;
}

static int64_t device_of(const publish *m, int level) {
    const uint8_t *at = m->topic, *end = m->topic + m->topic_length;
    for (; level > 0 && at; level--) {
        at = memchr(at, '/', (size_t)(end - at));
        at = at ? at + 1 : NULL;
    }
    bool named = at && end - at > 3 && memcmp(at, "dev", 3) == 0;
    return named ? number_at(at + 3, end) : -1;
}

static int64_t sequence_of(const publish *m, const char *marker) {
    static const char key[] = "\"seq\":";
    const uint8_t *at = m->payload, *end = m->payload + m->payload_length;
    if (*marker) {
        at = memmem(at, (size_t)(end - at), marker, strlen(marker));
    }
    at = at ? memmem(at, (size_t)(end - at), key, sizeof key - 1) : NULL;
    return at ? number_at(at + sizeof key - 1, end) : -1;
}

static void count_result(const options *o, tally *t, const publish *m, int64_t now_ns, int64_t start_ns,
                         int64_t end_ns) {
    int64_t device = device_of(m, o->device_level), seq = sequence_of(m, o->marker);
    int64_t index = (seq - o->first_seq) * o->devices + device;
    if (device < 0 || device >= o->devices || seq < o->first_seq || index >= t->sent) {
        t->foreign++;
        return;
    }
    int64_t scheduled_ns = t->scheduled_ns[index], warm_ns = start_ns + (int64_t)(o->warm_s * 1e9);
    if (scheduled_ns < 0) {
        t->duplicates++;
        return;
    }
    t->scheduled_ns[index] = -1;
    t->received++;
    t->last_result_ns = now_ns;
    t->received_in_window += now_ns >= warm_ns && now_ns < end_ns;
    if (scheduled_ns >= warm_ns) {
        t->latency_ns[t->samples++] = now_ns - scheduled_ns;
    }
}

static void read_results(connection *c, const options *o, tally *t, int64_t start_ns, int64_t end_ns) {
    mqtt_receive(c);
    int64_t now_ns = monotonic_ns();
    for (packet p; mqtt_next(c, &p);) {
        if (p.type == PACKET_PUBLISH) {
            publish m = mqtt_parse_publish(&p);
            if (m.packet_id) {
                mqtt_append_puback(c, m.packet_id);
            }
            count_result(o, t, &m, now_ns, start_ns, end_ns);
        }
    }
}

static void read_acknowledgements(connection *c, tally *t) {
    mqtt_receive(c);
    for (packet p; mqtt_next(c, &p);) {
        t->acknowledged += p.type == PACKET_PUBACK;
    }
}

/* ---- the run ---- */

static void wait_for_input(connection *publisher, connection *subscriber, struct pollfd ready[2], int64_t wait_ns) {
    connection *connections[2] = {publisher, subscriber};
    for (int i = 0; i < 2; i++) {
        short events = POLLIN | (mqtt_has_unsent(connections[i]) ? POLLOUT : 0);
        ready[i] = (struct pollfd){.fd = connections[i]->fd, .events = events};
    }
    if (wait_ns < 0) {
        wait_ns = 0;
    }
    struct timespec timeout = {.tv_sec = wait_ns / SECOND_NS, .tv_nsec = wait_ns % SECOND_NS};
    if (ppoll(ready, 2, &timeout, NULL) < 0) {
        ready[0].revents = ready[1].revents = 0; /* interrupted: the loop comes back */
    }
}

static int64_t nap_ns(const options *o, const tally *t, int64_t start_ns, bool over) {
    const int64_t longest_ns = 20000000; /* so that the end and the drain deadline are noticed */
    if (o->rate_per_s <= 0 || over) {
        return longest_ns;
    }
    int64_t until_due_ns = due_ns(o, t->sent, start_ns) - monotonic_ns();
    return until_due_ns < longest_ns ? until_due_ns : longest_ns;
}

static void run(connection *publisher, connection *subscriber, const options *o, tally *t) {
    int64_t start_ns = monotonic_ns(), end_ns = start_ns + (int64_t)(o->seconds * 1e9), over_since_ns = 0;
    for (;;) {
        publish_due(publisher, o, t, start_ns, end_ns);
        mqtt_flush(publisher);
        mqtt_flush(subscriber);
        int64_t now_ns = monotonic_ns();
        bool over = sending_is_over(o, t, now_ns, end_ns);
        if (over && !over_since_ns) {
            over_since_ns = now_ns;
        }
        bool late = now_ns > (over ? over_since_ns : end_ns) + (int64_t)(o->drain_s * 1e9);
        if ((over && t->received == t->sent) || late) {
            return;
        }
        struct pollfd ready[2];
        wait_for_input(publisher, subscriber, ready, nap_ns(o, t, start_ns, over));
        if (ready[0].revents & ~POLLOUT) {
            read_acknowledgements(publisher, t);
        }
        if (ready[1].revents & ~POLLOUT) {
            read_results(subscriber, o, t, start_ns, end_ns);
        }
    }
}

/* ---- the report ---- */

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(const tally *t, double q) {
    return t->samples ? (double)t->latency_ns[(int64_t)(q * (double)(t->samples - 1))] / 1e3 : 0;
}

static double own_cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return 1e6 * (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void report(const options *o, tally *t, int64_t start_ns, bool realtime) {
    if (t->samples) {
        qsort(t->latency_ns, (size_t)t->samples, sizeof *t->latency_ns, ascending);
    }
    double took_s = (double)(t->last_result_ns - start_ns) / 1e9;
    double rate = o->rate_per_s > 0 ? (t->received ? (double)t->received / took_s : 0)
                                    : (double)t->received_in_window / (o->seconds - o->warm_s);
    printf("{\"sent\":%lld,\"received\":%lld,\"duplicates\":%lld,\"foreign\":%lld,\"rate_per_s\":%.1f,"
           "\"samples\":%lld,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"next_seq\":%lld,"
           "\"loadgen_cpu_us\":%.3f,\"realtime\":%s}\n",
           (long long)t->sent, (long long)t->received, (long long)t->duplicates, (long long)t->foreign, rate,
           (long long)t->samples, quantile_us(t, 0.50), quantile_us(t, 0.99), quantile_us(t, 1.0),
           (long long)(o->first_seq + (t->sent + o->devices - 1) / o->devices), own_cpu_us() / (double)(t->received ? t->received : 1),
           realtime ? "true" : "false");
}

int main(int argc, char **argv) {
    options o = parse_options(argc, argv);
    char id[64];
    prctl(PR_SET_TIMERSLACK, 1000UL); /* ns; the default of 50 us would be seen in the latencies */
    snprintf(id, sizeof id, "bench-publisher-%d", getpid());
    connection *publisher = mqtt_connect(o.port, id);
    snprintf(id, sizeof id, "bench-subscriber-%d", getpid());
    connection *subscriber = mqtt_connect(o.port, id);
    mqtt_subscribe(subscriber, o.filter);
    mqtt_make_nonblocking(publisher);
    mqtt_make_nonblocking(subscriber);
    bool realtime = o.fifo && become_realtime();
    tally t = {0};
    grow(&t);
    int64_t start_ns = monotonic_ns();
    run(publisher, subscriber, &o, &t);
    report(&o, &t, start_ns, realtime);
    return 0;
}
