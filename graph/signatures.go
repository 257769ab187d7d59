package graph

import (
	"fmt"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// manyInputs is the number of inputs of an operator that takes any number.
const manyInputs = 1 << 30

// signature is what an operator may be given. What is not in it means something that this package
// knows nothing of, so a node with it is refused and never taken for a plainer one.
type signature struct {
	inputs int
	attrs  string // names, separated by spaces
}

// choices are the words that an attribute may hold.
var choices = map[string]string{
	"auto_pad":                       "NOTSET SAME_UPPER SAME_LOWER VALID",
	"approximate":                    "none tanh",
	"nearest_mode":                   "round_prefer_floor round_prefer_ceil floor ceil",
	"keep_aspect_ratio_policy":       "stretch not_larger not_smaller",
	"coordinate_transformation_mode": "half_pixel half_pixel_symmetric pytorch_half_pixel align_corners asymmetric tf_half_pixel_for_nn tf_crop_and_resize",
	"reduction":                      "none add mul max min mean sum",
	"Pad.mode":                       "constant reflect edge wrap",
	"Resize.mode":                    "nearest linear cubic",
	"DepthToSpace.mode":              "DCR CRD",
	"SpaceToDepth.mode":              "DCR CRD",
	"TensorScatter.mode":             "linear circular",
}

// checkSignatures refuses nodes with inputs, attributes or modes that are not known, in the graph and
// in those within it. Of operators that are not known at all nothing is said here.
func (g *Graph) checkSignatures() error {
	for _, n := range g.Nodes {
		if err := n.checkSignature(); err != nil {
			return errs.New(errs.Unsupported, "node %q (%s): %w", n.Name, key(n), err)
		}
		for _, sub := range n.graphs() {
			if err := sub.checkSignatures(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) checkSignature() error {
	s, ok := signatures[key(n)]
	if !ok {
		return nil
	}
	if len(n.Inputs) > s.inputs && slices.ContainsFunc(n.Inputs[s.inputs:], func(v *Value) bool { return v != nil }) {
		return fmt.Errorf("it has %d inputs, of which %d are known", len(n.Inputs), s.inputs)
	}
	known := strings.Fields(s.attrs)
	for name, a := range n.Attrs {
		if !slices.Contains(known, name) {
			return fmt.Errorf("its attribute %q is not known", name)
		}
		word, isWord := a.Value.(string)
		if allowed, ok := allowedWords(n, name); ok && isWord && !slices.Contains(allowed, word) {
			return fmt.Errorf("its attribute %s is %q, known are %q", name, word, allowed)
		}
	}
	return nil
}

func allowedWords(n *Node, attr string) ([]string, bool) {
	words, ok := choices[n.Op+"."+attr]
	if !ok {
		words, ok = choices[attr]
	}
	return strings.Fields(words), ok
}

// signatures are those of ai.onnx's operators in their newest form, of opset 28, and of the operators
// of com.microsoft that are written out. bench/reference/signatures.py makes this table.
var signatures = map[string]signature{
	"SimplifiedLayerNormalization":           {3, "axis epsilon stash_type"},
	"Abs":                                    {1, ""},
	"Acos":                                   {1, ""},
	"Acosh":                                  {1, ""},
	"Add":                                    {2, ""},
	"AffineGrid":                             {2, "align_corners"},
	"And":                                    {2, ""},
	"ArgMax":                                 {1, "axis keepdims select_last_index"},
	"ArgMin":                                 {1, "axis keepdims select_last_index"},
	"Asin":                                   {1, ""},
	"Asinh":                                  {1, ""},
	"Atan":                                   {1, ""},
	"Atanh":                                  {1, ""},
	"Attention":                              {7, "is_causal kv_num_heads left_window_size q_num_heads qk_matmul_output_mode right_window_size scale softcap softmax_precision"},
	"AveragePool":                            {1, "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides"},
	"BatchNormalization":                     {5, "epsilon momentum training_mode"},
	"Bernoulli":                              {1, "dtype seed"},
	"BitCast":                                {1, "to"},
	"BitShift":                               {2, "direction"},
	"BitwiseAnd":                             {2, ""},
	"BitwiseNot":                             {1, ""},
	"BitwiseOr":                              {2, ""},
	"BitwiseXor":                             {2, ""},
	"BlackmanWindow":                         {1, "output_datatype periodic"},
	"Cast":                                   {1, "round_mode saturate to"},
	"CastLike":                               {2, "round_mode saturate"},
	"CausalConvWithState":                    {4, "activation"},
	"Ceil":                                   {1, ""},
	"Celu":                                   {1, "alpha"},
	"CenterCropPad":                          {2, "axes"},
	"Clip":                                   {3, ""},
	"Col2Im":                                 {3, "dilations pads strides"},
	"Compress":                               {2, "axis"},
	"Concat":                                 {manyInputs, "axis"},
	"ConcatFromSequence":                     {1, "axis new_axis"},
	"Constant":                               {0, "sparse_value value value_float value_floats value_int value_ints value_string value_strings"},
	"ConstantOfShape":                        {1, "value"},
	"Conv":                                   {3, "auto_pad dilations group kernel_shape pads strides"},
	"ConvInteger":                            {4, "auto_pad dilations group kernel_shape pads strides"},
	"ConvTranspose":                          {3, "auto_pad dilations group kernel_shape output_padding output_shape pads strides"},
	"Cos":                                    {1, ""},
	"Cosh":                                   {1, ""},
	"CumProd":                                {2, "exclusive reverse"},
	"CumSum":                                 {2, "exclusive reverse"},
	"DFT":                                    {3, "axis inverse onesided"},
	"DeformConv":                             {5, "dilations group kernel_shape offset_group pads strides"},
	"DepthToSpace":                           {1, "blocksize mode"},
	"DequantizeLinear":                       {3, "axis block_size output_dtype"},
	"Det":                                    {1, ""},
	"Div":                                    {2, ""},
	"Dropout":                                {3, "seed"},
	"DynamicQuantizeLinear":                  {1, ""},
	"Einsum":                                 {manyInputs, "equation"},
	"Elu":                                    {1, "alpha"},
	"Equal":                                  {2, ""},
	"Erf":                                    {1, ""},
	"Exp":                                    {1, ""},
	"Expand":                                 {2, ""},
	"EyeLike":                                {1, "dtype k"},
	"Flatten":                                {1, "axis"},
	"Floor":                                  {1, ""},
	"GRU":                                    {6, "activation_alpha activation_beta activations clip direction hidden_size layout linear_before_reset"},
	"Gather":                                 {2, "axis"},
	"GatherElements":                         {2, "axis"},
	"GatherND":                               {2, "batch_dims"},
	"Gelu":                                   {1, "approximate"},
	"Gemm":                                   {3, "alpha beta transA transB"},
	"GlobalAveragePool":                      {1, ""},
	"GlobalLpPool":                           {1, "p"},
	"GlobalMaxPool":                          {1, ""},
	"Greater":                                {2, ""},
	"GreaterOrEqual":                         {2, ""},
	"GridSample":                             {2, "align_corners mode padding_mode"},
	"GroupNormalization":                     {3, "epsilon num_groups stash_type"},
	"HammingWindow":                          {1, "output_datatype periodic"},
	"HannWindow":                             {1, "output_datatype periodic"},
	"HardSigmoid":                            {1, "alpha beta"},
	"HardSwish":                              {1, ""},
	"Hardmax":                                {1, "axis"},
	"Identity":                               {1, ""},
	"If":                                     {1, "else_branch then_branch"},
	"ImageDecoder":                           {1, "pixel_format"},
	"InstanceNormalization":                  {3, "epsilon"},
	"IsInf":                                  {1, "detect_negative detect_positive"},
	"IsNaN":                                  {1, ""},
	"LRN":                                    {1, "alpha beta bias size"},
	"LSTM":                                   {8, "activation_alpha activation_beta activations clip direction hidden_size input_forget layout"},
	"LayerNormalization":                     {3, "axis epsilon stash_type"},
	"LeakyRelu":                              {1, "alpha"},
	"Less":                                   {2, ""},
	"LessOrEqual":                            {2, ""},
	"LinearAttention":                        {6, "chunk_size kv_num_heads q_num_heads scale update_rule"},
	"Log":                                    {1, ""},
	"LogSoftmax":                             {1, "axis"},
	"Loop":                                   {manyInputs, "body"},
	"LpNormalization":                        {1, "axis p"},
	"LpPool":                                 {1, "auto_pad ceil_mode dilations kernel_shape p pads strides"},
	"MatMul":                                 {2, ""},
	"MatMulInteger":                          {4, ""},
	"Max":                                    {manyInputs, ""},
	"MaxPool":                                {1, "auto_pad ceil_mode dilations kernel_shape pads storage_order strides"},
	"MaxRoiPool":                             {2, "pooled_shape spatial_scale"},
	"MaxUnpool":                              {3, "kernel_shape pads strides"},
	"Mean":                                   {manyInputs, ""},
	"MeanVarianceNormalization":              {1, "axes"},
	"MelWeightMatrix":                        {5, "output_datatype"},
	"Min":                                    {manyInputs, ""},
	"Mish":                                   {1, ""},
	"Mod":                                    {2, "fmod"},
	"Mul":                                    {2, ""},
	"Multinomial":                            {1, "dtype sample_size seed"},
	"Neg":                                    {1, ""},
	"NegativeLogLikelihoodLoss":              {3, "ignore_index reduction"},
	"NonMaxSuppression":                      {5, "center_point_box"},
	"NonZero":                                {1, ""},
	"Not":                                    {1, ""},
	"OneHot":                                 {3, "axis"},
	"Optional":                               {1, "type"},
	"OptionalGetElement":                     {1, ""},
	"OptionalHasElement":                     {1, ""},
	"Or":                                     {2, ""},
	"PRelu":                                  {2, ""},
	"Pad":                                    {4, "mode"},
	"Pow":                                    {2, ""},
	"QLinearConv":                            {9, "auto_pad dilations group kernel_shape pads strides"},
	"QLinearMatMul":                          {8, ""},
	"QuantizeLinear":                         {3, "axis block_size output_dtype precision saturate"},
	"RMSNormalization":                       {2, "axis epsilon stash_type"},
	"RNN":                                    {6, "activation_alpha activation_beta activations clip direction hidden_size layout"},
	"RandomNormal":                           {0, "dtype mean scale seed shape"},
	"RandomNormalLike":                       {1, "dtype mean scale seed"},
	"RandomUniform":                          {0, "dtype high low seed shape"},
	"RandomUniformLike":                      {1, "dtype high low seed"},
	"Range":                                  {3, "stash_type"},
	"Reciprocal":                             {1, ""},
	"ReduceL1":                               {2, "keepdims noop_with_empty_axes"},
	"ReduceL2":                               {2, "keepdims noop_with_empty_axes"},
	"ReduceLogSum":                           {2, "keepdims noop_with_empty_axes"},
	"ReduceLogSumExp":                        {2, "keepdims noop_with_empty_axes"},
	"ReduceMax":                              {2, "keepdims noop_with_empty_axes"},
	"ReduceMean":                             {2, "keepdims noop_with_empty_axes"},
	"ReduceMin":                              {2, "keepdims noop_with_empty_axes"},
	"ReduceProd":                             {2, "keepdims noop_with_empty_axes"},
	"ReduceSum":                              {2, "keepdims noop_with_empty_axes"},
	"ReduceSumSquare":                        {2, "keepdims noop_with_empty_axes"},
	"RegexFullMatch":                         {1, "pattern"},
	"Relu":                                   {1, ""},
	"Reshape":                                {2, "allowzero"},
	"Resize":                                 {4, "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value keep_aspect_ratio_policy mode nearest_mode"},
	"ReverseSequence":                        {2, "batch_axis time_axis"},
	"RoiAlign":                               {3, "coordinate_transformation_mode mode output_height output_width sampling_ratio spatial_scale"},
	"RotaryEmbedding":                        {4, "interleaved num_heads rotary_embedding_dim"},
	"Round":                                  {1, ""},
	"STFT":                                   {4, "onesided"},
	"Scan":                                   {manyInputs, "body num_scan_inputs scan_input_axes scan_input_directions scan_output_axes scan_output_directions"},
	"ScatterElements":                        {3, "axis reduction"},
	"ScatterND":                              {3, "reduction"},
	"Selu":                                   {1, "alpha gamma"},
	"SequenceAt":                             {2, ""},
	"SequenceConstruct":                      {manyInputs, ""},
	"SequenceEmpty":                          {0, "dtype"},
	"SequenceErase":                          {2, ""},
	"SequenceInsert":                         {3, ""},
	"SequenceLength":                         {1, ""},
	"SequenceMap":                            {manyInputs, "body"},
	"Shape":                                  {1, "end start"},
	"Shrink":                                 {1, "bias lambd"},
	"Sigmoid":                                {1, ""},
	"Sign":                                   {1, ""},
	"Sin":                                    {1, ""},
	"Sinh":                                   {1, ""},
	"Size":                                   {1, ""},
	"Slice":                                  {5, ""},
	"Softmax":                                {1, "axis"},
	"SoftmaxCrossEntropyLoss":                {3, "ignore_index reduction"},
	"Softplus":                               {1, ""},
	"Softsign":                               {1, ""},
	"SpaceToDepth":                           {1, "blocksize mode"},
	"Split":                                  {2, "axis num_outputs"},
	"SplitToSequence":                        {2, "axis keepdims"},
	"Sqrt":                                   {1, ""},
	"Squeeze":                                {2, ""},
	"StringConcat":                           {2, ""},
	"StringNormalizer":                       {1, "case_change_action is_case_sensitive locale stopwords"},
	"StringSplit":                            {1, "delimiter maxsplit"},
	"Sub":                                    {2, ""},
	"Sum":                                    {manyInputs, ""},
	"SwiGLU":                                 {2, "alpha"},
	"Swish":                                  {1, "alpha"},
	"Tan":                                    {1, ""},
	"Tanh":                                   {1, ""},
	"TensorScatter":                          {3, "axis mode"},
	"TfIdfVectorizer":                        {1, "max_gram_length max_skip_count min_gram_length mode ngram_counts ngram_indexes pool_int64s pool_strings weights"},
	"ThresholdedRelu":                        {1, "alpha"},
	"Tile":                                   {2, ""},
	"TopK":                                   {2, "axis largest sorted"},
	"Transpose":                              {1, "perm"},
	"Trilu":                                  {2, "upper"},
	"Unique":                                 {1, "axis sorted"},
	"Unsqueeze":                              {2, ""},
	"Where":                                  {3, ""},
	"Xor":                                    {2, ""},
	"com.microsoft.Attention":                {7, "do_rotary mask_filter_value num_heads past_present_share_buffer qkv_hidden_sizes rotary_embedding_dim scale unidirectional"},
	"com.microsoft.BiasAdd":                  {3, ""},
	"com.microsoft.BiasGelu":                 {2, ""},
	"com.microsoft.BiasSoftmax":              {2, "axis is_inner_broadcast"},
	"com.microsoft.BiasSplitGelu":            {2, ""},
	"com.microsoft.DequantizeLinear":         {3, "axis"},
	"com.microsoft.DynamicQuantizeMatMul":    {5, ""},
	"com.microsoft.EmbedLayerNormalization":  {9, "epsilon mask_index_type"},
	"com.microsoft.FastGelu":                 {2, ""},
	"com.microsoft.FusedConv":                {4, "activation activation_params auto_pad dilations group kernel_shape pads strides"},
	"com.microsoft.FusedGemm":                {3, "activation activation_alpha activation_beta activation_gamma alpha beta transA transB"},
	"com.microsoft.FusedMatMul":              {2, "alpha transA transB transBatchA transBatchB"},
	"com.microsoft.FusedMatMulActivation":    {2, "activation activation_alpha activation_axis activation_beta activation_gamma alpha transA transB transBatchA transBatchB"},
	"com.microsoft.GatherBlockQuantized":     {4, "bits block_size gather_axis quantize_axis"},
	"com.microsoft.Gelu":                     {1, ""},
	"com.microsoft.GemmFastGelu":             {3, ""},
	"com.microsoft.GroupNorm":                {3, "activation channels_last epsilon groups"},
	"com.microsoft.GroupQueryAttention":      {17, "causal do_rotary k_norm_epsilon k_quant_type kv_cache_bit_width kv_num_heads local_window_size num_heads q_norm_epsilon qk_norm_epsilon qk_output rotary_interleaved scale sliding_window_cache smooth_softmax softcap v_quant_type"},
	"com.microsoft.MatMulIntegerToFloat":     {7, ""},
	"com.microsoft.MatMulNBits":              {6, "K N accuracy_level bits block_size weight_prepacked"},
	"com.microsoft.MultiHeadAttention":       {10, "mask_filter_value num_heads scale unidirectional"},
	"com.microsoft.QAttention":               {9, "do_rotary mask_filter_value num_heads past_present_share_buffer scale unidirectional"},
	"com.microsoft.QGemm":                    {9, "alpha transA transB"},
	"com.microsoft.QLinearAdd":               {8, ""},
	"com.microsoft.QLinearAveragePool":       {5, "auto_pad ceil_mode channels_last count_include_pad kernel_shape pads strides"},
	"com.microsoft.QLinearConcat":            {manyInputs, "axis"},
	"com.microsoft.QLinearGlobalAveragePool": {5, "channels_last"},
	"com.microsoft.QLinearLeakyRelu":         {5, "alpha"},
	"com.microsoft.QLinearMul":               {8, ""},
	"com.microsoft.QLinearSigmoid":           {5, ""},
	"com.microsoft.QLinearSoftmax":           {5, "axis opset"},
	"com.microsoft.QuantizeLinear":           {3, "axis"},
	"com.microsoft.QuickGelu":                {1, "alpha"},
	"com.microsoft.RotaryEmbedding":          {4, "interleaved is_packed_batching num_heads rotary_embedding_dim scale"},
	"com.microsoft.SkipGroupNorm":            {5, "activation channels_last epsilon groups"},
	"com.microsoft.SkipLayerNormalization":   {5, "epsilon"},
	"com.microsoft.SkipSimplifiedLayerNormalization": {4, "epsilon"},
	"com.microsoft.TransposeMatMul":                  {2, "alpha transA transB"},
	"com.microsoft.Trilu":                            {2, "upper"},
}
