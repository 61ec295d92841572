/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a VMM may say, and what it is told. tests/system/test_broker.py says most of it to a real agent; here is what is said
 * of the limits. */

#include <stdio.h>

#include "daemon/agent/broker-rules.h"
#include "test.h"

static VfioUserMessage *message(uint16_t command, const void *payload, size_t size)
{
        VfioUserMessage *m = vfio_user_message_new(size);

        assert_non_null(m);
        m->header.command = command;
        m->header.id = 77;
        if (size > 0)
                memcpy(m->payload, payload, size);
        return m;
}

static int judge(uint16_t command, const void *payload, size_t size, const BrokerLimits *limits)
{
        VfioUserMessage *m = message(command, payload, size);
        size_t reply;
        int r = broker_rules_command(m, limits, &reply);

        vfio_user_message_free(m);
        return r;
}

static const BrokerLimits limits = {65536, 8};

/* ---- commands ---------------------------------------------------------------------------------------------------- */

/* Whatever the payload of zeros: only commands on the list get through, and only in their own sizes. */
static void test_the_list_of_commands_is_closed(void **state)
{
        static const uint8_t zeros[70000];

        for (uint32_t command = 0; command <= UINT16_MAX; command += command < 300 ? 1 : 977) {
                bool on_list = (command >= VFIO_USER_DMA_MAP && command <= VFIO_USER_REGION_WRITE) ||
                               command == VFIO_USER_DEVICE_RESET || command == VFIO_USER_REGION_WRITE_MULTI ||
                               command == VFIO_USER_DEVICE_FEATURE;
                bool any = false;

                for (size_t size = 0; size < 64; size++)
                        any |= judge((uint16_t) command, zeros, size, &limits) == 0;
                /* SET_IRQS of zeros says nothing at all. */
                assert_int_equal(any, on_list && command != VFIO_USER_DEVICE_SET_IRQS);
        }
        assert_int_equal(judge(VFIO_USER_DEVICE_RESET, zeros, 0, &limits), 0);
        assert_int_equal(judge(VFIO_USER_DEVICE_RESET, zeros, 1, &limits), EINVAL);
}

static void test_an_access_is_as_long_as_the_server_takes(void **state)
{
        static uint8_t payload[sizeof(VfioUserRegionAccess) + 65537];

        for (uint32_t count = 65535; count <= 65537; count++) {
                VfioUserRegionAccess access = {.count = count};

                memcpy(payload, &access, sizeof access);
                assert_int_equal(judge(VFIO_USER_REGION_READ, payload, sizeof access, &limits),
                                 count <= 65536 ? 0 : EINVAL);
                assert_int_equal(judge(VFIO_USER_REGION_WRITE, payload, sizeof access + count, &limits),
                                 count <= 65536 ? 0 : EINVAL);
                assert_int_equal(judge(VFIO_USER_REGION_WRITE, payload, sizeof access + count - 1, &limits),
                                 EINVAL);
        }
}

static void test_migration_is_not_for_the_vmm(void **state)
{
        for (uint32_t number = 0; number < 32; number++)
                for (uint32_t ops = 0; ops < 8; ops++) {
                        VfioUserFeature feature = {.argsz = 16, .flags = number | ops << 16};
                        bool set = feature.flags & VFIO_USER_FEATURE_SET;
                        bool ours = (number >= 6 && number <= 8) || (number == 2 && set);

                        assert_int_equal(judge(VFIO_USER_DEVICE_FEATURE, &feature, sizeof feature, &limits),
                                         ours ? EINVAL : 0);
                }
}

static void test_a_servers_command_is_memory_within_what_the_vmm_takes(void **state)
{
        static uint8_t payload[sizeof(VfioUserDmaAccess) + 65537];

        for (uint64_t count = 65535; count <= 65537; count++)
                for (size_t more = 0; more < 2; more++) {
                        VfioUserDmaAccess access = {0, count};
                        VfioUserMessage *m;

                        memcpy(payload, &access, sizeof access);
                        m = message(VFIO_USER_DMA_READ, payload, sizeof access + more);
                        assert_int_equal(broker_rules_server_command(m, &limits),
                                         count <= 65536 && !more ? 0 : EINVAL);
                        vfio_user_message_free(m);
                        m = message(VFIO_USER_DMA_WRITE, payload, sizeof access + count - more);
                        assert_int_equal(broker_rules_server_command(m, &limits),
                                         count <= 65536 && !more ? 0 : EINVAL);
                        vfio_user_message_free(m);
                }
        for (uint16_t command = 0; command < 32; command++) {
                VfioUserMessage *m = message(command, payload, 8);

                assert_int_equal(broker_rules_server_command(m, &limits),
                                 command == VFIO_USER_DMA_READ || command == VFIO_USER_DMA_WRITE ? EINVAL
                                                                                                 : ENOSYS);
                vfio_user_message_free(m);
        }
}

/* ---- VERSION ----------------------------------------------------------------------------------------------------- */

static int version(const char *vmm, const char *server, BrokerLimits *ret, bool *ret_twin, char *text)
{
        uint8_t payload[1024] = {};
        size_t size = sizeof(VfioUserVersion) + (*vmm ? strlen(vmm) + 1 : 0);
        VfioUserMessage *request, *reply;
        BrokerServer from = {1, server};
        VfioUserVersion both = {0, 2};
        int r;

        memcpy(payload, &both, sizeof both);
        memcpy(payload + sizeof both, vmm, strlen(vmm));
        request = message(VFIO_USER_VERSION, payload, size);
        r = broker_rules_version(request, &from, ret, ret_twin, &reply);
        if (r == 0) {
                memcpy(&both, reply->payload, sizeof both);
                assert_int_equal(both.minor, 1);
                assert_int_equal(reply->header.id, 77);
                assert_int_equal(reply->header.flags, VFIO_USER_TYPE_REPLY);
                assert_int_equal(reply->payload[vfio_user_message_payload(reply) - 1], 0);
                (void) strcpy(text, (const char *) reply->payload + sizeof both);
                vfio_user_message_free(reply);
        }
        vfio_user_message_free(request);
        return r;
}

#define CAPS(members) "{\"capabilities\":{" members "}}"

static void test_limits_are_the_smaller_ones(void **state)
{
        static const struct {
                const char *vmm, *server;
                uint32_t data_max, files_max; /* the VMM's */
                const char *says;
        } rows[] = {
                {"", "", 1048576, 1,
                 "\"max_msg_fds\":1,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535"},
                {CAPS(""), CAPS(""), 1048576, 1, "\"max_msg_fds\":1,\"max_data_xfer_size\":1048576"},
                {CAPS("\"max_msg_fds\":99"), CAPS("\"max_msg_fds\":99"), 1048576, 16, "\"max_msg_fds\":16"},
                {CAPS("\"max_msg_fds\":-5"), CAPS("\"max_msg_fds\":0"), 1048576, 0, "\"max_msg_fds\":0"},
                {CAPS("\"max_msg_fds\":\"a\""), CAPS("\"max_msg_fds\":{}"), 1048576, 1, "\"max_msg_fds\":1"},
                {CAPS("\"max_data_xfer_size\":4096"), CAPS("\"max_data_xfer_size\":8192"), 4096, 1,
                 "\"max_data_xfer_size\":4096"},
                {CAPS("\"max_data_xfer_size\":8192"), CAPS("\"max_data_xfer_size\":4096"), 8192, 1,
                 "\"max_data_xfer_size\":4096"},
                {CAPS("\"max_data_xfer_size\":99999999999"), CAPS("\"max_data_xfer_size\":99999999999"),
                 1048576, 1, "\"max_data_xfer_size\":1048576"},
                {"", CAPS("\"max_dma_maps\":10"), 1048576, 1, "\"max_dma_maps\":10"},
                {"", CAPS("\"max_dma_maps\":1000000"), 1048576, 1, "\"max_dma_maps\":65535"},
                {"", CAPS("\"write_multiple\":true,\"pgsizes\":4096,\"x\":{\"y\":[1]}"), 1048576, 1,
                 "\"write_multiple\":true,\"pgsizes\":4096,\"x\":{\"y\":[1]}"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                BrokerLimits vmm;
                char text[1024];
                bool twin;

                assert_int_equal(version(rows[i].vmm, rows[i].server, &vmm, &twin, text), 0);
                if (!strstr(text, rows[i].says))
                        print_error("row %zu: %s\n", i, text);
                assert_non_null(strstr(text, rows[i].says));
                assert_int_equal(vmm.data_max, rows[i].data_max);
                assert_int_equal(vmm.files_max, rows[i].files_max);
                assert_false(twin);
        }
}

/* It is ours, whether the server has one or not. */
static void test_a_twin_is_for_who_asks_and_can_take_a_file(void **state)
{
        static const char *const servers[] = {"", CAPS("\"twin_socket\":{\"supported\":true,\"fd_index\":3}"),
                                              CAPS("\"twin_socket\":7")};

        for (size_t i = 0; i < ARRAY_SIZE(servers); i++)
                for (int asks = 0; asks < 2; asks++)
                        for (int fds = 0; fds < 2; fds++) {
                                char vmm[256], text[1024];
                                BrokerLimits l;
                                bool twin;

                                (void) snprintf(vmm, sizeof vmm,
                                                CAPS("\"max_msg_fds\":%d,\"twin_socket\":{\"supported\":%s}"),
                                                fds, asks ? "true" : "false");
                                assert_int_equal(version(vmm, servers[i], &l, &twin, text), 0);
                                assert_int_equal(twin, asks && fds);
                                assert_int_equal(
                                        strstr(text, "\"twin_socket\":{\"supported\":true,\"fd_index\":0}") !=
                                                NULL,
                                        asks && fds);
                                assert_int_equal(strstr(text, "twin_socket") != NULL, asks && fds);
                        }
}

static void test_what_is_no_version_is_refused(void **state)
{
        static const char *const texts[] = {"{", "x", "[]", "1", "\"\"", "null", "{\"capabilities\":{}"};
        BrokerServer server = {2, ""};
        uint8_t payload[16] = {};
        BrokerLimits l;
        char text[1024];
        bool twin;

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                assert_int_equal(version(texts[i], "", &l, &twin, text), EINVAL);
        for (size_t size = 0; size < 4; size++) {
                VfioUserMessage *m = message(VFIO_USER_VERSION, payload, size), *reply;

                assert_int_equal(broker_rules_version(m, &server, &l, &twin, &reply), EINVAL);
                vfio_user_message_free(m);
        }
        payload[0] = 1; /* major */
        VfioUserMessage *m = message(VFIO_USER_VERSION, payload, 4), *reply;
        assert_int_equal(broker_rules_version(m, &server, &l, &twin, &reply), EPROTONOSUPPORT);
        vfio_user_message_free(m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_list_of_commands_is_closed),
                cmocka_unit_test(test_an_access_is_as_long_as_the_server_takes),
                cmocka_unit_test(test_migration_is_not_for_the_vmm),
                cmocka_unit_test(test_a_servers_command_is_memory_within_what_the_vmm_takes),
                cmocka_unit_test(test_limits_are_the_smaller_ones),
                cmocka_unit_test(test_a_twin_is_for_who_asks_and_can_take_a_file),
                cmocka_unit_test(test_what_is_no_version_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
