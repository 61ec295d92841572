/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Those who wait for a plugin that is of no use. It has no process here: what may not be loaded can be asked all the same. */

#include "daemon/loop.h"
#include "daemon/plugin/plugin.h"
#include "test.h"

#define TURNS 8

typedef struct Rig Rig;

typedef struct Asker {
        Rig *rig;
        bool forgets, asks; /* ... the last one when it is told; anew, once */
        int told;
} Asker;

struct Rig {
        Loop *loop;
        LoopTimer *turn;
        Plugin *plugin;
        PluginPacket packet;
        Asker askers[3];
};

static void ask(Asker *asker);

static void on_told(void *userdata, Plugin *plugin, PluginEnd end, const PluginAnswer *answer,
                    const char *text)
{
        Asker *asker = userdata;
        Rig *rig = asker->rig;

        assert_int_equal(end, PLUGIN_END_ABSENT);
        assert_null(answer);
        assert_string_equal(text, "trouble");
        asker->told++;
        if (asker->forgets)
                plugin_forget(plugin, &rig->askers[2]);
        if (asker->asks)
                ask(asker);
        asker->asks = false;
}

static void ask(Asker *asker)
{
        plugin_packet_init(&asker->rig->packet, PLUGIN_CALL_BEFORE, 0);
        plugin_ask(asker->rig->plugin, &asker->rig->packet, 1000000, true, on_told, asker);
}

static void on_turn(void *userdata)
{
        loop_quit(((Rig *) userdata)->loop);
}

static void rig_init(Rig *rig)
{
        *rig = (Rig){};
        assert_int_equal(loop_new(&rig->loop), 0);
        assert_int_equal(loop_timer_new(rig->loop, on_turn, rig, &rig->turn), 0);
        assert_int_equal(plugin_new(rig->loop, "/nowhere", "p.so", -1, "trouble", &rig->plugin), 0);
        for (size_t i = 0; i < ARRAY_SIZE(rig->askers); i++) {
                rig->askers[i].rig = rig;
                ask(&rig->askers[i]);
        }
}

static void rig_turn(Rig *rig)
{
        for (int i = 0; i < TURNS; i++) {
                loop_timer_soon(rig->turn);
                assert_int_equal(loop_run(rig->loop), 0);
        }
}

static void rig_deinit(Rig *rig)
{
        plugin_free(rig->plugin);
        loop_timer_free(rig->turn);
        loop_free(rig->loop);
}

static void test_all_are_told_once(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_turn(&rig);
        for (size_t i = 0; i < ARRAY_SIZE(rig.askers); i++)
                assert_int_equal(rig.askers[i].told, 1);
        rig_deinit(&rig);
}

/* A job that is told of one device's call may go on, and wait for none of the others any more. */
static void test_one_that_is_forgotten_while_others_are_told_is_not_told(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig.askers[0].forgets = true;
        rig_turn(&rig);
        assert_int_equal(rig.askers[0].told, 1);
        assert_int_equal(rig.askers[1].told, 1);
        assert_int_equal(rig.askers[2].told, 0);
        rig_deinit(&rig);
}

static void test_one_that_asks_when_it_is_told_is_told_again(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig.askers[0].asks = true;
        rig_turn(&rig);
        assert_int_equal(rig.askers[0].told, 2);
        assert_int_equal(rig.askers[2].told, 1);
        rig_deinit(&rig);
}

static void test_nobody_is_told_when_it_goes(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_deinit(&rig);
        for (size_t i = 0; i < ARRAY_SIZE(rig.askers); i++)
                assert_int_equal(rig.askers[i].told, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all_are_told_once),
                cmocka_unit_test(test_one_that_is_forgotten_while_others_are_told_is_not_told),
                cmocka_unit_test(test_one_that_asks_when_it_is_told_is_told_again),
                cmocka_unit_test(test_nobody_is_told_when_it_goes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
