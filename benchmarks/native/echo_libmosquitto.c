/* The same echo by the usual C library: one callback and one publish per message.
 *
 * libmosquitto acknowledges when the callback returns; nothing is decoded, inferred or stored.
 * Usage: echo_libmosquitto PORT */
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <stdio.h>
#include <stdlib.h>

enum { QOS = 1, NO_LIMIT = 65535 };

static void check(int rc, const char *what) {
    if (rc != MOSQ_ERR_SUCCESS) {
        fprintf(stderr, "%s failed: %s\n", what, mosquitto_strerror(rc));
        exit(2);
    }
}

static void on_message(struct mosquitto *m, void *unused, const struct mosquitto_message *message) {
    (void)unused;
    char topic[256];
    snprintf(topic, sizeof topic, "out%s", message->topic + 2);
    check(mosquitto_publish(m, NULL, topic, message->payloadlen, message->payload, QOS, false), "publish");
}

static void on_connect(struct mosquitto *m, void *unused, int rc) {
    (void)unused;
    check(rc, "connect");
    check(mosquitto_subscribe(m, NULL, "in/+", QOS), "subscribe");
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: echo_libmosquitto PORT\n");
        return 2;
    }
    mosquitto_lib_init();
    struct mosquitto *m = mosquitto_new("bench-echo-libmosquitto", true, NULL);
    if (!m) {
        fprintf(stderr, "creating the client failed\n");
        return 2;
    }
    check(mosquitto_int_option(m, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5), "choosing MQTT 5");
    check(mosquitto_int_option(m, MOSQ_OPT_RECEIVE_MAXIMUM, NO_LIMIT), "lifting the receive maximum");
    check(mosquitto_int_option(m, MOSQ_OPT_SEND_MAXIMUM, NO_LIMIT), "lifting the send maximum");
    check(mosquitto_int_option(m, MOSQ_OPT_TCP_NODELAY, 1), "switching Nagle off");
    mosquitto_message_callback_set(m, on_message);
    mosquitto_connect_callback_set(m, on_connect);

    mosquitto_property *properties = NULL;
    check(mosquitto_property_add_int16(&properties, MQTT_PROP_RECEIVE_MAXIMUM, NO_LIMIT), "adding a property");
    check(mosquitto_connect_bind_v5(m, "127.0.0.1", atoi(argv[1]), 600, NULL, properties), "connect");
    check(mosquitto_loop_forever(m, 100, 1), "the loop");
    return 0;
}
