"""The cases of ONNX's suites that are out of scope, by the reason that the importer gives.

The tests want exactly these: a case that falls out for a new reason, or is read all of a sudden,
must be seen.
"""

from __future__ import annotations

OPERATORS: dict[str, tuple[str, ...]] = {
    "it divides by a tensor": (
        "test_div",
        "test_div_bcast",
        "test_div_example",
        "test_div_int16",
        "test_div_int32_trunc",
        "test_div_int8",
        "test_div_uint16",
        "test_div_uint32",
        "test_div_uint64",
        "test_div_uint8",
    ),
    "it is in training mode": (
        "test_batchnorm_epsilon_training_mode",
        "test_batchnorm_example_training_mode",
        "test_training_dropout",
        "test_training_dropout_default",
        "test_training_dropout_zero_ratio",
    ),
    "it joins along axis 0, not along the channels": (
        "test_concat_2d_axis_0",
        "test_concat_2d_axis_negative_2",
        "test_concat_3d_axis_0",
        "test_concat_3d_axis_negative_3",
    ),
    "it joins along axis 2, not along the channels": (
        "test_concat_3d_axis_2",
        "test_concat_3d_axis_negative_1",
    ),
    "it normalises over axis 0, not over the channels": (
        "test_logsoftmax_axis_0",
        "test_softmax_axis_0",
    ),
    "it normalises over axis 2, not over the channels": (
        "test_logsoftmax_axis_2",
        "test_logsoftmax_default_axis",
        "test_logsoftmax_negative_axis",
        "test_softmax_axis_2",
        "test_softmax_default_axis",
        "test_softmax_negative_axis",
    ),
    "it normalises over other axes than channels and space": (
        "test_layer_normalization_2d_axis0",
        "test_layer_normalization_2d_axis_negative_2",
        "test_layer_normalization_3d_axis0_epsilon",
        "test_layer_normalization_3d_axis2_epsilon",
        "test_layer_normalization_3d_axis_negative_1_epsilon",
        "test_layer_normalization_3d_axis_negative_3_epsilon",
        "test_layer_normalization_4d_axis0",
        "test_layer_normalization_4d_axis2",
        "test_layer_normalization_4d_axis3",
        "test_layer_normalization_4d_axis_negative_1",
        "test_layer_normalization_4d_axis_negative_2",
        "test_layer_normalization_4d_axis_negative_4",
        "test_layer_normalization_default_axis",
    ),
    "it reduces the batch or the channels, not space alone": (
        "test_reduce_max_default_axes_keepdim_example",
        "test_reduce_max_default_axes_keepdims_random",
        "test_reduce_max_do_not_keepdims_example",
        "test_reduce_max_do_not_keepdims_random",
        "test_reduce_max_keepdims_example",
        "test_reduce_max_keepdims_random",
        "test_reduce_max_negative_axes_keepdims_example",
        "test_reduce_max_negative_axes_keepdims_random",
        "test_reduce_mean_default_axes_keepdims_example",
        "test_reduce_mean_default_axes_keepdims_random",
        "test_reduce_mean_do_not_keepdims_example",
        "test_reduce_mean_do_not_keepdims_random",
        "test_reduce_mean_keepdims_example",
        "test_reduce_mean_keepdims_random",
        "test_reduce_mean_negative_axes_keepdims_example",
        "test_reduce_mean_negative_axes_keepdims_random",
    ),
    "it scales by 0.5, 0.5": ("test_resize_downsample_sizes_nearest_not_larger",),
    "it scales by 0.5, 0.75": ("test_resize_downsample_sizes_nearest",),
    "it scales by 0.6, 0.6": (
        "test_resize_downsample_scales_linear",
        "test_resize_downsample_scales_linear_antialias",
        "test_resize_downsample_scales_nearest",
    ),
    "it scales by 0.75, 0.25": ("test_resize_downsample_sizes_linear_pytorch_half_pixel",),
    "it scales by 0.75, 0.75": (
        "test_resize_downsample_sizes_linear_antialias",
        "test_resize_downsample_sizes_nearest_not_smaller",
    ),
    "it scales by 1, 0.6": ("test_resize_downsample_scales_linear_half_pixel_symmetric",),
    "it scales by 2.3, 2.94": ("test_resize_upsample_scales_linear_half_pixel_symmetric",),
    "it scales by 3.5, 3.5": ("test_resize_upsample_sizes_nearest_not_larger",),
    "it scales by 3.5, 4": (
        "test_resize_upsample_sizes_nearest",
        "test_resize_upsample_sizes_nearest_axes_2_3",
        "test_resize_upsample_sizes_nearest_axes_3_2",
    ),
    "it stretches a tensor of fewer axes": ("test_mul_bcast",),
    "it stretches one tensor to the shape of another": (
        "test_add_bcast",
        "test_sub_bcast",
    ),
    "it transposes the batch": (
        "test_gemm_all_attributes",
        "test_gemm_transposeA",
    ),
    "its bias has shape (3, 4), not 4": ("test_gemm_default_matrix_bias",),
    "its cubic interpolation by align_corners (round_prefer_floor) is not the language's": (
        "test_resize_downsample_scales_cubic_align_corners",
        "test_resize_upsample_scales_cubic_align_corners",
    ),
    "its cubic interpolation by asymmetric (round_prefer_floor) is not the language's": (
        "test_resize_upsample_scales_cubic_asymmetric",
    ),
    "its cubic interpolation by half_pixel (round_prefer_floor) is not the language's": (
        "test_resize_downsample_scales_cubic",
        "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside",
        "test_resize_downsample_scales_cubic_antialias",
        "test_resize_downsample_sizes_cubic",
        "test_resize_downsample_sizes_cubic_antialias",
        "test_resize_upsample_scales_cubic",
        "test_resize_upsample_scales_cubic_A_n0p5_exclude_outside",
        "test_resize_upsample_sizes_cubic",
    ),
    "its linear interpolation by align_corners (round_prefer_floor) is not the language's": (
        "test_resize_downsample_scales_linear_align_corners",
        "test_resize_upsample_scales_linear_align_corners",
    ),
    "its linear interpolation by tf_crop_and_resize (round_prefer_floor) is not the language's": (
        "test_resize_tf_crop_and_resize",
        "test_resize_tf_crop_and_resize_axes_2_3",
        "test_resize_tf_crop_and_resize_axes_3_2",
        "test_resize_tf_crop_and_resize_extrapolation_value",
    ),
    "its mask is read": (
        "test_dropout_default_mask",
        "test_dropout_default_mask_ratio",
        "test_training_dropout_default_mask",
        "test_training_dropout_mask",
        "test_training_dropout_zero_ratio_mask",
    ),
    "its minimum 2 is not below its maximum 1": ("test_clip_min_greater_than_max",),
    "its nearest interpolation by align_corners (floor) is not the language's": (
        "test_resize_upsample_sizes_nearest_floor_align_corners",
    ),
    "its nearest interpolation by asymmetric (round_prefer_ceil) is not the language's": (
        "test_resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric",
    ),
    "its nearest interpolation by half_pixel (ceil) is not the language's": (
        "test_resize_upsample_sizes_nearest_ceil_half_pixel",
    ),
    "its scale differs from position to position": (
        "test_layer_normalization_3d_axis1_epsilon",
        "test_layer_normalization_3d_axis_negative_2_epsilon",
        "test_layer_normalization_4d_axis1",
        "test_layer_normalization_4d_axis_negative_3",
    ),
    "its slope has shape (3, 4, 5), not one value a channel": ("test_prelu_example",),
    "its slope has shape (5,), not one value a channel": ("test_prelu_broadcast",),
    "its weight has shape (1, 2, 4, 2), which is no matrix": ("test_matmul_bcast",),
    "its weight has shape (1, 2, 4, 3), which is no matrix": ("test_matmul_4d",),
    "its weight has shape (2, 4, 1), which is no matrix": ("test_matmul_1d_3d",),
    "its weight has shape (2, 4, 3), which is no matrix": ("test_matmul_3d",),
    "its weight has shape (3,), which is no matrix": (
        "test_matmul_1d_1d",
        "test_matmul_4d_1d",
    ),
    "more than its first output is read": (
        "test_layer_normalization_2d_axis1",
        "test_layer_normalization_2d_axis_negative_1",
        "test_maxpool_with_argmax_2d_precomputed_pads",
        "test_maxpool_with_argmax_2d_precomputed_strides",
    ),
    "the input data is 2x?x4: sizes other than the batch must be known": (
        "test_reduce_max_empty_set",
        "test_reduce_max_empty_set_bool",
    ),
    "opt_in is a sequence of tensors, which the language lacks": ("test_identity_opt",),
    "x is a sequence of tensors, which the language lacks": ("test_identity_sequence",),
    "the language has no mean over a sample": ("test_reduce_max_bool_inputs",),
    "the language has no padding by 'wrap'": ("test_wrap_pad",),
    "it joins parts of axes that the language keeps apart": ("test_reshape_reordered_last_dims",),
    "it makes an empty tensor": ("test_reshape_allowzero_reordered",),
    "it reshapes Nx3x4 to -1x2x3x4": ("test_reshape_negative_extended_dims",),
    "it reshapes Nx3x4 to 24": ("test_reshape_one_dim",),
    "it reshapes Nx3x4 to 4x2x3": ("test_reshape_reordered_all_dims",),
}

CONVERTED: dict[str, tuple[str, ...]] = {
    "it normalises over axis 3, not over the channels": (
        "test_log_softmax_dim3",
        "test_softmax_functional_dim3",
    ),
    "its constant has shape (10, 10), which is not one value a channel": (
        "test_PoissonNLLLLoss_no_reduce",
    ),
    "the language has no such op": (
        "test_Embedding",
        "test_Embedding_sparse",
        "test_GLU",
        "test_GLU_dim",
        "test_SELU",
        "test_Softplus",
        "test_Softsign",
    ),
}

# Of the suites below most is out of scope: what passes is named.

EXPANDED = (
    "test_clip_default_inbounds_expanded",
    "test_clip_default_int8_inbounds_expanded",
    "test_gelu_default_1_expanded",
    "test_gelu_default_2_expanded",
    "test_gelu_tanh_1_expanded",
    "test_gelu_tanh_2_expanded",
    "test_hardsigmoid_default_expanded_ver18",
    "test_hardsigmoid_example_expanded_ver18",
    "test_hardsigmoid_expanded_ver18",
    "test_hardswish_expanded",
    "test_relu_expanded_ver18",
    "test_swish_expanded",
)

FUNCTIONS = (
    "test_operator_basic",
    "test_operator_clip",
    "test_operator_concat2",
    "test_operator_conv",
    "test_operator_convtranspose",
    "test_operator_flatten",
    "test_operator_maxpool",
    "test_operator_mm",
    "test_operator_pad",
    "test_operator_permute2",
    "test_operator_reduced_mean",
    "test_operator_reduced_mean_keepdim",
    "test_operator_symbolic_override",
    "test_operator_symbolic_override_nested",
    "test_operator_view",
)

SIMPLE = ("test_single_relu_model",)
