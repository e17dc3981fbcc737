/* The floor: echoes in/<device> to out/<device>, QoS 1, one read and one write per burst.
 *
 * It decodes nothing, infers nothing and stores nothing; it acknowledges after its own publish is
 * queued. Nothing that speaks MQTT through this broker can be expected to be faster.
 * Usage: echo_raw PORT */
#include "mqtt_wire.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

static void echo(connection *c, const publish *m, unsigned packet_id) {
    char topic[256] = "out";
    if (m->topic_length < 2 || m->topic_length > sizeof topic - 3) {
        die("expected a topic in/<device>, got %zu bytes", m->topic_length);
    }
    memcpy(topic + 3, m->topic + 2, m->topic_length - 2);
    mqtt_append_publish(c, topic, m->topic_length + 1, m->payload, m->payload_length, packet_id);
    mqtt_append_puback(c, m->packet_id);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        die("usage: echo_raw PORT");
    }
    connection *c = mqtt_connect(atoi(argv[1]), "bench-echo-raw");
    mqtt_subscribe(c, "in/+");
    mqtt_make_nonblocking(c);
    unsigned packet_id = 0;
    for (;;) {
        struct pollfd ready = {.fd = c->fd, .events = POLLIN | (mqtt_has_unsent(c) ? POLLOUT : 0)};
        poll(&ready, 1, -1);
        if (ready.revents & ~POLLOUT) {
            mqtt_receive(c);
            for (packet p; mqtt_next(c, &p);) {
                if (p.type == PACKET_PUBLISH) {
                    publish m = mqtt_parse_publish(&p);
                    packet_id = next_packet_id(packet_id);
                    echo(c, &m, packet_id);
                }
            }
        }
        mqtt_flush(c);
    }
}
