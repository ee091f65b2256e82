// SPDX-License-Identifier: MIT
// The operations of sync objects, exporters and frames, on a card that has them.
#include "fault/operation.hpp"

#include <array>
#include <cerrno>
#include <memory>
#include <optional>

#include <drm_fourcc.h>
#include <sys/eventfd.h>

#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/frame_allocator.hpp>
#include <sluice/frame_map.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/kms_presenter.hpp>
#include <sluice/syncobj.hpp>
#include <sluice/udmabuf.hpp>

#include "support/drm_cards.hpp"
#include "support/memfd.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice::test {

namespace {

using namespace std::chrono_literals;

template <typename T> T must(Result<T>&& result) {
    EXPECT_TRUE(result) << result.error().message();
    return std::move(*result);
}

/// A card with sync objects, one of each kind in use, and a fence.
struct SyncScene {
    UniqueFd card = open_drm("virtio_gpu");
    SyncobjDevice device = must(SyncobjDevice::wrap(card.get()));
    Syncobj binary = must(Syncobj::create(device, {.signalled = true}));
    Syncobj timeline = must(Syncobj::create(device));
    SwSync fences;
    SyncFile pending = fences.fence(1);

    SyncScene() { EXPECT_TRUE(timeline.signal(1)); }

    /// The kernel gives out the lowest handle that is free, which is the third, or the fourth while
    /// the operation's own object lives.
    void expect_handles(std::uint32_t lowest_free = 3) const {
        EXPECT_EQ(must(Syncobj::create(device)).handle(), lowest_free) << "a handle was leaked";
    }
};

std::vector<Operation> syncobj_operations() {
    const auto with_scene = [](auto run, auto right) {
        return [=]() -> Attempt {
            auto my = std::make_shared<SyncScene>();
            return attempt([=] { return run(*my); },
                           [=](auto& result) {
                               const bool is_right = right(*my, result);
                               return is_right;
                           });
        };
    };
    const auto done = [](const SyncScene& my, auto& result) {
        my.expect_handles();
        return result.has_value();
    };
    return {
        {"SyncobjDevice::wrap",
         with_scene([](SyncScene& my) { return SyncobjDevice::wrap(my.card.get()); },
                    [](const SyncScene&, auto& device) { return device.has_value(); })},
        {"Syncobj::create", with_scene([](SyncScene& my) { return Syncobj::create(my.device); },
                                       [](const SyncScene& my, auto& made) {
                                           my.expect_handles(made ? 4 : 3);
                                           return made && made->handle() == 3;
                                       })},
        {"Syncobj::export_fd", with_scene([](SyncScene& my) { return my.binary.export_fd(); },
                                          [](const SyncScene& my, auto& fd) {
                                              my.expect_handles();
                                              return fd && *fd;
                                          })},
        {"Syncobj::from_fd",
         [] {
             auto my = std::make_shared<SyncScene>();
             auto shared = std::make_shared<UniqueFd>(must(my->binary.export_fd()));
             return attempt(
                 [=]() -> Result<Syncobj> {
                     auto copy = shared->duplicate(); // which goes with the operation
                     if (!copy)
                         return tl::unexpected(std::move(copy.error()));
                     return Syncobj::from_fd(my->device, std::move(*copy));
                 },
                 [=](auto& made) {
                     my->expect_handles(made ? 4 : 3);
                     return made.has_value();
                 });
         }},
        {"Syncobj::import_fence, binary",
         with_scene([](SyncScene& my) { return my.binary.import_fence(my.pending); }, done)},
        {"Syncobj::import_fence, the next point",
         [] {
             auto my = std::make_shared<SyncScene>();
             auto point = std::make_shared<std::uint64_t>(1);
             return attempt([=] { return my->timeline.import_fence(my->pending, ++*point); },
                            [=](auto& result) {
                                my->expect_handles();
                                return result.has_value();
                            });
         }},
        {"Syncobj::export_fence, binary",
         with_scene([](SyncScene& my) { return my.binary.export_fence(); }, done)},
        {"Syncobj::export_fence, a point",
         with_scene([](SyncScene& my) { return my.timeline.export_fence(1); }, done)},
        {"Syncobj::export_fence, a point not submitted",
         with_scene([](SyncScene& my) { return my.timeline.export_fence(9); },
                    [](const SyncScene& my, auto& fence) {
                        my.expect_handles();
                        return !fence && fence.error().code == Errc::busy;
                    })},
        {"Syncobj::wait, binary",
         with_scene([](SyncScene& my) { return my.binary.wait(0, deadline_in(20s)); }, done)},
        {"Syncobj::wait, a point",
         with_scene([](SyncScene& my) { return my.timeline.wait(1, deadline_in(20s)); }, done)},
        {"Syncobj::wait_available",
         with_scene([](SyncScene& my) { return my.timeline.wait_available(1, deadline_in(20s)); },
                    done)},
        {"Syncobj::signal", with_scene([](SyncScene& my) { return my.binary.signal(); }, done)},
        {"Syncobj::reset", with_scene([](SyncScene& my) { return my.binary.reset(); }, done)},
        {"Syncobj::query", with_scene([](SyncScene& my) { return my.timeline.query(); },
                                      [](const SyncScene& my, auto& point) {
                                          my.expect_handles();
                                          return point && *point == 1;
                                      })},
        {"Syncobj::notify",
         [] {
             auto my = std::make_shared<SyncScene>();
             auto event = std::make_shared<UniqueFd>(eventfd(0, EFD_CLOEXEC));
             return attempt(
                 [=] { return my->timeline.notify(1, SyncobjEvent::signalled, event->get()); },
                 [=](auto& result) {
                     my->expect_handles();
                     return result.has_value();
                 });
         }},
    };
}

bool zero(const DmaBuf& buffer) {
    auto map = must(CpuMap::map(buffer, Access::read));
    auto access = must(CpuAccess::begin(map, Access::read, deadline_in(20s)));
    for (const std::byte each : access.bytes())
        if (each != std::byte{0})
            return false;
    return true;
}

/// What \p exporter, made anew, makes.
template <typename Open> Operation allocation(std::string name, Open open) {
    return {std::move(name), [open] {
                auto exporter = open();
                return attempt([=] { return exporter->allocate({.size = 5000, .name = "frame"}); },
                               [=](auto& buffer) {
                                   return buffer && buffer->size() >= 5000 &&
                                          (!exporter->caps().zeroed || zero(*buffer));
                               });
            }};
}

std::vector<Operation> alloc_operations() {
    return {
        {"UdmabufExporter::open",
         [] {
             return attempt([] { return UdmabufExporter::open(); },
                            [](auto& exporter) { return exporter.has_value(); });
         }},
        allocation("UdmabufExporter::allocate", [] { return udmabuf_exporter(); }),
        {"UdmabufExporter::wrap_memfd",
         [] {
             auto exporter = udmabuf_exporter();
             auto memory = std::make_shared<UniqueFd>(memfd(8192));
             EXPECT_EQ(fcntl(memory->get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
             return attempt(
                 [=] { return exporter->wrap_memfd(memory->get(), 4096, 4096, "theirs"); },
                 [](auto& buffer) { return buffer && buffer->size() == 4096; });
         }},
        {"DmaHeapExporter::open",
         [] {
             return attempt([] { return DmaHeapExporter::open(); },
                            [](auto& exporter) { return exporter.has_value(); });
         },
         true},
        {"DmaHeapExporter::allocate",
         allocation("", [] { return must(DmaHeapExporter::open()); }).set_up, true},
        {"DumbExporter::wrap",
         [] {
             auto card = std::make_shared<UniqueFd>(open_drm("vkms"));
             return attempt([=] { return DumbExporter::wrap(card->get()); },
                            [=](auto& exporter) {
                                EXPECT_EQ(lowest_free_handle(card->get()), 1U);
                                return exporter.has_value();
                            });
         }},
        {"DumbExporter::allocate",
         [] {
             auto card = std::make_shared<UniqueFd>(open_drm("vkms"));
             auto exporter = must(DumbExporter::wrap(card->get()));
             return attempt([=] { return exporter->allocate({.size = 5000}); },
                            [=](auto& buffer) {
                                EXPECT_EQ(lowest_free_handle(card->get()), 1U);
                                return buffer && buffer->size() >= 5000 &&
                                       buffer->mode() == Access::read_write;
                            });
         }},
        {"DumbExporter::allocate_frame",
         [] {
             auto card = std::make_shared<UniqueFd>(open_drm("vkms"));
             auto exporter = must(DumbExporter::wrap(card->get()));
             return attempt(
                 [=] {
                     return exporter->allocate_frame(
                         {.width = 33, .height = 7, .format = DRM_FORMAT_XRGB8888});
                 },
                 [=](auto& frame) {
                     EXPECT_EQ(lowest_free_handle(card->get()), 1U);
                     return frame && frame->layout().planes[0].stride >= 132;
                 });
         }},
        {"FrameAllocator::allocate, zeroed, of one that promises nothing",
         [] {
             auto card = std::make_shared<UniqueFd>(open_drm("vkms"));
             auto allocator =
                 std::make_shared<FrameAllocator>(std::vector<std::shared_ptr<const Exporter>>{
                     must(DumbExporter::wrap(card->get()))});
             return attempt(
                 [=] {
                     return allocator->allocate({}, {.width = 16,
                                                     .height = 4,
                                                     .formats = {DRM_FORMAT_XRGB8888},
                                                     .zeroed = true});
                 },
                 [=](auto& made) {
                     EXPECT_EQ(lowest_free_handle(card->get()), 1U);
                     return made && zero(made->frame.buffer());
                 });
         }},
    };
}

/// A frame over two buffers, the second held by work that ends while the operation sleeps.
struct FrameScene {
    SwSync timeline;
    Frame frame = make();

    static Frame make() {
        std::vector<DmaBuf> buffers;
        buffers.push_back(udmabuf(4096));
        buffers.push_back(udmabuf(4096));
        return must(Frame::create(
            {.width = 16,
             .height = 16,
             .format = DRM_FORMAT_NV12,
             .planes = {FramePlane{.stride = 16}, FramePlane{.stride = 16, .buffer = 1}}},
            std::move(buffers)));
    }
    FrameScene() { EXPECT_TRUE(frame.buffer(1).import_fence(timeline.fence(1), Access::write)); }
};

std::vector<Operation> frame_operations() {
    return {
        {"FrameMap::map",
         [] {
             auto my = std::make_shared<FrameScene>();
             return attempt([=] { return FrameMap::map(my->frame, Access::read_write); },
                            [](auto& map) { return map.has_value(); });
         }},
        {"FrameAccess::begin and end, once work is done",
         [] {
             auto my = std::make_shared<FrameScene>();
             auto map = std::make_shared<FrameMap>(must(FrameMap::map(my->frame, Access::read)));
             boundary::before_sleep([my] { my->timeline.advance(1); });
             return attempt(
                 [=]() -> Result<void> {
                     auto access = FrameAccess::begin(*map, Access::read, deadline_in(20s));
                     if (!access)
                         return tl::unexpected(std::move(access.error()));
                     return access->end();
                 },
                 [](auto& result) { return result.has_value(); });
         }},
        {"Frame::revoke",
         [] {
             auto my = std::make_shared<FrameScene>();
             boundary::before_sleep([my] { my->timeline.advance(1); });
             return attempt([=] { return my->frame.revoke(deadline_in(20s)); },
                            [=](auto& result) { return result && my->frame.revoked(); });
         }},
    };
}

/// A card with two frames, an output that has been lit, and a fence.
struct ScreenScene {
    static constexpr std::uint32_t width = 640, height = 480;

    UniqueFd file = open_drm("vkms");
    KmsDevice card = must(KmsDevice::wrap(file.get()));
    Frame frame = make();
    std::optional<KmsFramebuffer> framebuffer = must(card.attach(frame));
    std::optional<KmsFramebuffer> into = must(card.attach(make()));
    std::optional<KmsOutput> output =
        must(card.find_output({.width = width, .height = height, .writeback = true}));
    SwSync timeline;
    SyncFile done = timeline.fence(1);

    static Frame make() {
        return must(Frame::create({.width = width,
                                   .height = height,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .planes = {FramePlane{.stride = width * 4}}},
                                  udmabuf(std::uint64_t{width} * height * 4)));
    }
    ScreenScene() {
        timeline.advance(1);
        auto flip = must(output->commit({.framebuffer = &*framebuffer}));
        EXPECT_TRUE(flip.out_fence->wait(deadline_in(20s)));
    }
};

/// The screen is ready for the next commit, whatever became of the last one.
bool is_shown(Result<KmsFlip>& flip) {
    return flip && flip->out_fence->wait(deadline_in(20s)) &&
           (!flip->writeback_fence || flip->writeback_fence->wait(deadline_in(20s)));
}

std::vector<Operation> screen_operations() {
    std::vector<Operation> all{
        {"KmsDevice::attach",
         [] {
             auto my = std::make_shared<ScreenScene>();
             auto frame = std::make_shared<Frame>(ScreenScene::make());
             return attempt([=] { return my->card.attach(*frame); },
                            [=](auto& made) {
                                EXPECT_EQ(lowest_free_handle(my->file.get()), 1U);
                                return made.has_value();
                            });
         }},
        {"KmsOutput::test, of layers",
         [] {
             auto my = std::make_shared<ScreenScene>();
             return attempt(
                 [=] {
                     const std::array layers{
                         KmsLayer{.framebuffer = &*my->framebuffer, .in_fence = &my->done},
                         KmsLayer{.framebuffer = &*my->into, .destination = {.x = 300}}};
                     return my->output->test({.layers = layers});
                 },
                 [](auto& result) { return result.has_value(); });
         }},
        {"KmsOutput::commit",
         [] {
             auto my = std::make_shared<ScreenScene>();
             return attempt(
                 [=] {
                     return my->output->commit(
                         {.framebuffer = &*my->framebuffer, .in_fence = &my->done});
                 },
                 is_shown);
         }},
        {"KmsPresenter::present and finish",
         [] {
             auto my = std::make_shared<ScreenScene>();
             auto presenter =
                 std::make_shared<KmsPresenter>(must(KmsPresenter::create(std::move(*my->output))));
             auto shown = std::make_shared<int>(0);
             return attempt(
                 [=]() -> Result<void> {
                     for (const auto* each : {&my->framebuffer, &my->into})
                         if (auto taken =
                                 presenter->present({.framebuffer = &**each, .in_fence = &my->done},
                                                    {}, deadline_in(20s));
                             !taken)
                             return taken;
                     auto finished = presenter->finish(deadline_in(20s));
                     while (auto event = presenter->event()) {
                         *shown += event->kind == KmsPresentEvent::Kind::shown;
                         if (event->error && finished)
                             finished = tl::unexpected(std::move(*event->error));
                     }
                     return finished;
                 },
                 // What was taken before a fault is shown too.
                 [=](auto& result) {
                     return result.has_value() && *shown >= 2 && presenter->pending() == 0;
                 });
         }},
    };
    for (Operation& each : all)
        each.in_pairs = false;
    return all;
}

} // namespace

std::vector<Operation> device_operations() {
    std::vector<Operation> all;
    // Where there are no such devices nothing can be set up.
    if (open_drm("virtio_gpu"))
        for (auto& each : syncobj_operations())
            all.push_back(std::move(each));
    if (open_drm("vkms"))
        for (auto& each : alloc_operations())
            all.push_back(std::move(each));
    if (open_drm("vkms"))
        for (auto& each : screen_operations())
            all.push_back(std::move(each));
    for (auto& each : frame_operations())
        all.push_back(std::move(each));
    return all;
}

} // namespace sluice::test
