# shellcheck shell=bash
# Sourced by the tests that run whole programs with the layer: which layers lie above which.
# Wants `manifests`, the folder of the explicit manifest, and `temp`, a folder of the test's own.

ours=VK_LAYER_SLUICE_dma_buf
# shellcheck disable=SC2034 # for who sources this
validation=VK_LAYER_KHRONOS_validation

mkdir -p "$temp/data/vulkan"
ln -s "$manifests" "$temp/data/vulkan/explicit_layer.d"

# Runs a command with layers, the upper one first, as "$ours:$validation"; "" is none.
with_layers() { # layers command...
    local place=(VK_ADD_LAYER_PATH="$manifests")
    # Some loaders go by the order of the names, others by that in which they find the manifests.
    [[ $1 != *:"$ours" ]] ||
        place=(XDG_DATA_DIRS="${XDG_DATA_DIRS:-/usr/local/share:/usr/share}:$temp/data")
    env "${place[@]}" VK_INSTANCE_LAYERS="$1" "${@:2}"
}

# Whether layers lie so, the upper one first, by what the loader says when a command makes an instance.
lie_so() { # layers command...
    local found
    found=$(VK_LOADER_DEBUG=layer "${@:2}" 2>&1 |
        awk -v names="$1" 'BEGIN { split(names, wanted, ":"); for (i in wanted) is[wanted[i]] = 1 }
            /vkCreateInstance layer callstack/ { on = 1 }
            /<Driver/ { exit }
            on && $NF in is { print $NF }' | paste -sd :)
    [[ $found == "$1" ]] || { echo "wanted $1 and got $found"; false; }
}

# Whether the layer is there and speaks: else nothing that it does not say would prove anything.
speaks() { # command...
    VK_SLUICE_DMA_BUF_SYNC=nonsense "$@" 2>&1 | grep "$ours:.*nonsense"
}
